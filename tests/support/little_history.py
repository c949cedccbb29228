"""A history small enough to know what must come of it, by hand from docs/semantics.md."""

HISTORY = """\
customer_id,order_id,type,occurred_at,amount
ann,a1,paid,2026-01-01T10:00:00Z,600.00
ann,a2,paid,2026-01-05T10:00:00Z,700.00
bob,b1,paid,2026-01-06T10:00:00Z,50.00
ann,a1,paid,2026-01-01T10:00:00Z,600.00
,x1,paid,2026-01-07T10:00:00Z,10.00
bob,b9,refunded,2026-01-08T00:00:00Z,5.00
bob,b1,cancelled,2026-01-09T00:00:00Z,
"""
"""Row 3 is a duplicate, row 4 has no customer, row 5 refunds an order there is not; row 6 voids all bob has."""

CHANGES = [
    ("ann", 1, "2026-01-01T10:00:00+00:00", None, "100", "first_order", "a1"),
    ("ann", 2, "2026-01-05T10:00:00+00:00", "100", "101", "order", "a2"),
    ("ann", 3, "2026-02-05T00:00:00+00:00", "101", "001", "recency_expired", None),
    ("bob", 1, "2026-01-06T10:00:00+00:00", None, "100", "first_order", "b1"),
    ("bob", 2, "2026-01-09T00:00:00+00:00", "100", None, "cancellation", "b1"),
]
"""By rfm8 as of 2026-03-01: ann is within 30 days until the end of 2026-02-04."""
