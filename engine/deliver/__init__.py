"""Delivery: tier changes and signals from Kafka to HTTP destinations, at least once, in order per customer."""
