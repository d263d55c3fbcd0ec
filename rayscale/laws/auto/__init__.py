"""Which law: the laws that suit a table, weighed by how well each predicts larger sizes held out."""
