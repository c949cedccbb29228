import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * rfm8 on Kafka Streams: a processor with a punctuator.
 *
 * <p>Arguments: BOOTSTRAP ORDERS CHANGES PARTITIONS FOLDER THREADS
 *
 * <p>Ageing: a punctuator on stream time, which is a partition's newest record; every day, because in a history of
 * months that is read in seconds more often means after nearly every record, and halves the speed. On an idle topic
 * stream time stands still and nobody ages out; punctuation on the wall clock would do it there, but is wrong while a
 * backlog is read.
 * <br>Delivery: exactly_once_v2.
 * <br>State: RocksDB, written to changelog topics.
 */
public final class PeerKafkaStreams {
    private static final ObjectMapper JSON = new ObjectMapper();

    static final class Segments implements Processor<String, Rfm8.Order, String, Rfm8.Change> {
        private ProcessorContext<String, Rfm8.Change> context;
        private KeyValueStore<String, Rfm8.Customer> customers;
        private KeyValueStore<String, byte[]> seen;
        private KeyValueStore<byte[], byte[]> due;
        /** Nobody is due before: spares the range the tombstones of all who were. */
        private long dueFromUs;

        @Override
        public void init(ProcessorContext<String, Rfm8.Change> context) {
            this.context = context;
            customers = context.getStateStore("customers");
            seen = context.getStateStore("seen");
            due = context.getStateStore("due");
            context.schedule(Duration.ofDays(1), PunctuationType.STREAM_TIME, this::ageOut);
        }

        @Override
        public void process(Record<String, Rfm8.Order> record) {
            Rfm8.Order order = record.value();
            String id = order.customerId;
            if (!order.type.equals("paid") || seen.putIfAbsent(id + "/" + order.orderId, new byte[0]) != null) {
                return;
            }
            Rfm8.Customer customer = customers.get(id);
            if (customer == null) {
                customer = new Rfm8.Customer();
            }
            long dueBefore = customer.dueUs;
            customer.pay(id, order.atUs(), order.amountMinor(), this::forward);
            customers.put(id, customer);
            if (customer.dueUs != dueBefore) {
                if (dueBefore != Rfm8.NOT_RECENT) {
                    due.delete(dueKey(dueBefore, id));
                }
                due.put(dueKey(customer.dueUs, id), new byte[0]);
                dueFromUs = Math.min(dueFromUs, customer.dueUs);
            }
        }

        private void ageOut(long nowMs) {
            List<byte[]> keys = new ArrayList<>();
            try (KeyValueIterator<byte[], byte[]> rows = due.range(dueKey(dueFromUs, ""), dueKey(nowMs * 1000 + 1, ""))) {
                rows.forEachRemaining((KeyValue<byte[], byte[]> row) -> keys.add(row.key));
            }
            dueFromUs = nowMs * 1000 + 1;
            for (byte[] key : keys) {
                due.delete(key);
                String id = new String(key, 8, key.length - 8);
                Rfm8.Customer customer = customers.get(id);
                customer.expire(id, nowMs * 1000, this::forward);
                customers.put(id, customer);
            }
        }

        private void forward(Rfm8.Change change) {
            context.forward(new Record<>(change.customerId, change, context.currentStreamTimeMs()));
        }

        /** Big-endian, so that the store's order of bytes is the order of time. */
        private static byte[] dueKey(long dueUs, String id) {
            byte[] text = id.getBytes();
            return ByteBuffer.allocate(8 + text.length).putLong(dueUs).put(text).array();
        }
    }

    private static <T> Serde<T> json(Class<T> type) {
        Serializer<T> write = (topic, value) -> {
            try {
                return JSON.writeValueAsBytes(value);
            } catch (java.io.IOException error) {
                throw new java.io.UncheckedIOException(error);
            }
        };
        Deserializer<T> read = (topic, bytes) -> {
            try {
                return JSON.readValue(bytes, type);
            } catch (java.io.IOException error) {
                throw new java.io.UncheckedIOException(error);
            }
        };
        return Serdes.serdeFrom(write, read);
    }

    private static Serde<Rfm8.Customer> customer() {
        return Serdes.serdeFrom(
                (topic, c) -> c == null ? null
                        : ByteBuffer.allocate(36).putLong(c.frequency).putLong(c.monetary).putInt(c.tier)
                                .putLong(c.seq).putLong(c.dueUs).array(),
                (topic, bytes) -> {
                    if (bytes == null) {
                        return null;
                    }
                    ByteBuffer buffer = ByteBuffer.wrap(bytes);
                    Rfm8.Customer c = new Rfm8.Customer();
                    c.frequency = buffer.getLong();
                    c.monetary = buffer.getLong();
                    c.tier = buffer.getInt();
                    c.seq = buffer.getLong();
                    c.dueUs = buffer.getLong();
                    return c;
                });
    }

    public static void main(String[] arguments) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "peer-kafka-streams");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[4]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[5]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put("auto.offset.reset", "earliest");
        settings.put(StreamsConfig.producerPrefix("batch.size"), 524288);
        settings.put(StreamsConfig.producerPrefix("linger.ms"), 20);
        settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
        // A transaction a second, as Flink's; what is overwritten meanwhile goes to RocksDB and the changelog once.
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256 << 20);

        Topology topology = new Topology();
        topology.addSource("orders", Serdes.String().deserializer(), json(Rfm8.Order.class).deserializer(), arguments[1]);
        topology.addProcessor("segment", Segments::new, "orders");
        topology.addStateStore(
                Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("customers"), Serdes.String(), customer()).withCachingEnabled(), "segment");
        topology.addStateStore(
                Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("seen"), Serdes.String(), Serdes.ByteArray()).withCachingEnabled(), "segment");
        topology.addStateStore(
                Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("due"), Serdes.ByteArray(), Serdes.ByteArray()), "segment");
        topology.addSink("changes", arguments[2], Serdes.String().serializer(), json(Rfm8.Change.class).serializer(), "segment");

        KafkaStreams streams = new KafkaStreams(topology, settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
