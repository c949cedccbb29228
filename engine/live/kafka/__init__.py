"""The live worker on Apache Kafka. Faust and aiokafka are imported here and nowhere else."""
