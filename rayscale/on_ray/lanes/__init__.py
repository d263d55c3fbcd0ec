"""Lanes: worker groups that stay up and take one trial after the other."""
