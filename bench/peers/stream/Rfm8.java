import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import java.math.BigDecimal;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.function.Consumer;

/**
 * The rules of rfm8 (lifetime, UTC days) for the Java peers, so that they differ in their framework alone.
 *
 * Source: docs/semantics.md sections 2 to 6.
 */
public final class Rfm8 {
    public static final int RECENT_DAYS = 30;
    public static final int FREQUENT_ORDERS = 3;
    public static final long VALUABLE_MINOR = 100_000;
    public static final long DAY_US = 86_400_000_000L;
    public static final long NOT_RECENT = Long.MAX_VALUE;

    private Rfm8() {}

    @JsonIgnoreProperties(ignoreUnknown = true)
    public static class Order {
        @JsonProperty("customer_id") public String customerId;
        @JsonProperty("order_id") public String orderId;
        public String type;
        @JsonProperty("occurred_at") public String occurredAt;
        public String amount;

        public long atUs() {
            return ChronoUnit.MICROS.between(Instant.EPOCH, Instant.parse(occurredAt));
        }

        public long amountMinor() {
            return new BigDecimal(amount).movePointRight(2).longValueExact();
        }
    }

    public static class Change {
        @JsonProperty("customer_id") public String customerId;
        public long seq;
        @JsonProperty("effective_at") public String effectiveAt;
        @JsonProperty("from_tier") public String fromTier;
        @JsonProperty("to_tier") public String toTier;
        public String reason;
    }

    /** A customer: tier -1 before the first order, else the bits R F M; dueUs the midnight at which R ends. */
    public static class Customer {
        public long frequency;
        public long monetary;
        public int tier = -1;
        public long seq;
        public long dueUs = NOT_RECENT;

        /** Lets time pass up to an instant. */
        public void expire(String id, long nowUs, Consumer<Change> changes) {
            if (dueUs > nowUs) {
                return;
            }
            long atUs = dueUs;
            dueUs = NOT_RECENT;
            evaluate(id, atUs, "recency_expired", changes);
        }

        /** Applies an order that is no duplicate: the change due before it, then its own. */
        public void pay(String id, long atUs, long amountMinor, Consumer<Change> changes) {
            expire(id, atUs, changes);
            frequency++;
            monetary += amountMinor;
            dueUs = (Math.floorDiv(atUs, DAY_US) + RECENT_DAYS + 1) * DAY_US;
            evaluate(id, atUs, tier < 0 ? "first_order" : "order", changes);
        }

        private void evaluate(String id, long atUs, String reason, Consumer<Change> changes) {
            int now = (dueUs == NOT_RECENT ? 0 : 4) + (frequency >= FREQUENT_ORDERS ? 2 : 0)
                    + (monetary >= VALUABLE_MINOR ? 1 : 0);
            if (now == tier) {
                return;
            }
            Change change = new Change();
            change.customerId = id;
            change.seq = ++seq;
            change.effectiveAt = Instant.EPOCH.plus(atUs, ChronoUnit.MICROS).toString();
            change.fromTier = name(tier);
            change.toTier = name(now);
            change.reason = reason;
            tier = now;
            changes.accept(change);
        }

        private static String name(int tier) {
            return tier < 0 ? null : Integer.toBinaryString(8 | tier).substring(1);
        }
    }
}
