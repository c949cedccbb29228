"""What worker and delivery do alike with a client of Kafka. Read at aiokafka 0.14.0."""
