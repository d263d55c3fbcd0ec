"""Which law: the laws that suit a table, weighed by evidence or by how well each predicts held-out sizes."""
