import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.serialization.AbstractDeserializationSchema;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * rfm8 on Flink: a KeyedProcessFunction with event-time timers, in a local cluster within this process.
 *
 * <p>Arguments: BOOTSTRAP ORDERS CHANGES PARTITIONS FOLDER PARALLELISM
 *
 * <p>Ageing: timers at the true midnight, fired by the watermark, which is the slowest partition's newest record. An
 * order may come before a timer that was due earlier, because another partition holds the watermark back, so it lets
 * its customer's time pass itself. On an idle topic the watermark stands still and nobody ages out.
 * <br>Delivery: exactly once, by transactions that end with each checkpoint (1 s).
 * <br>State: on the heap, Flink's default; a state larger than memory would need the slower RocksDB.
 */
public final class PeerFlink {
    static final class Orders extends AbstractDeserializationSchema<Rfm8.Order> {
        private transient ObjectMapper json;

        @Override
        public void open(InitializationContext context) {
            json = new ObjectMapper();
        }

        @Override
        public Rfm8.Order deserialize(byte[] message) throws IOException {
            return json.readValue(message, Rfm8.Order.class);
        }
    }

    static final class Changes implements SerializationSchema<Rfm8.Change> {
        private transient ObjectMapper json;

        @Override
        public void open(InitializationContext context) {
            json = new ObjectMapper();
        }

        @Override
        public byte[] serialize(Rfm8.Change change) {
            try {
                return json.writeValueAsBytes(change);
            } catch (IOException error) {
                throw new java.io.UncheckedIOException(error);
            }
        }
    }

    static final class Segments extends KeyedProcessFunction<String, Rfm8.Order, Rfm8.Change> {
        private transient ValueState<Rfm8.Customer> customers;
        private transient MapState<String, Boolean> seen;

        @Override
        public void open(OpenContext context) {
            customers = getRuntimeContext().getState(new ValueStateDescriptor<>("customer", Rfm8.Customer.class));
            seen = getRuntimeContext().getMapState(new MapStateDescriptor<>("seen", Types.STRING, Types.BOOLEAN));
        }

        @Override
        public void processElement(Rfm8.Order order, Context context, Collector<Rfm8.Change> out) throws Exception {
            if (!order.type.equals("paid") || seen.contains(order.orderId)) {
                return;
            }
            seen.put(order.orderId, true);
            Rfm8.Customer customer = customers.value();
            if (customer == null) {
                customer = new Rfm8.Customer();
            }
            long dueBefore = customer.dueUs;
            customer.pay(order.customerId, order.atUs(), order.amountMinor(), out::collect);
            customers.update(customer);
            if (customer.dueUs != dueBefore) {
                context.timerService().registerEventTimeTimer(customer.dueUs / 1000);
                if (dueBefore != Rfm8.NOT_RECENT) {
                    context.timerService().deleteEventTimeTimer(dueBefore / 1000);
                }
            }
        }

        @Override
        public void onTimer(long timestamp, OnTimerContext context, Collector<Rfm8.Change> out) throws Exception {
            Rfm8.Customer customer = customers.value();
            customer.expire(context.getCurrentKey(), timestamp * 1000, out::collect);
            customers.update(customer);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Configuration settings = new Configuration();
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + arguments[4]);
        StreamExecutionEnvironment flow = StreamExecutionEnvironment.createLocalEnvironment(Integer.parseInt(arguments[5]), settings);
        flow.enableCheckpointing(1000, CheckpointingMode.EXACTLY_ONCE);
        flow.getConfig().enableObjectReuse();

        KafkaSource<Rfm8.Order> orders = KafkaSource.<Rfm8.Order>builder()
                .setBootstrapServers(arguments[0])
                .setTopics(arguments[1])
                .setGroupId("peer-flink")
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setValueOnlyDeserializer(new Orders())
                .build();
        KafkaSink<Rfm8.Change> changes = KafkaSink.<Rfm8.Change>builder()
                .setBootstrapServers(arguments[0])
                .setRecordSerializer(KafkaRecordSerializationSchema.<Rfm8.Change>builder()
                        .setTopic(arguments[2])
                        .setKeySerializationSchema((Rfm8.Change change) -> change.customerId.getBytes())
                        .setValueSerializationSchema(new Changes())
                        .build())
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix("peer-flink")
                .setProperty("transaction.timeout.ms", "600000")
                .setProperty("batch.size", "524288")
                .setProperty("linger.ms", "20")
                .setProperty("compression.type", "lz4")
                .build();
        flow.fromSource(orders, WatermarkStrategy.forMonotonousTimestamps(), "orders")
                .keyBy(order -> order.customerId)
                .process(new Segments())
                .sinkTo(changes);
        flow.execute("peer-flink");
    }
}
