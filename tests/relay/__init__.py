"""The ways out: events to Kafka through the relay, and jobs' status to Redis; nothing is lost, and no mail waits."""
