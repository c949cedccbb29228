"""All that delivery does with Kafka: the only place in it that knows aiokafka. Read at aiokafka 0.14.0."""
