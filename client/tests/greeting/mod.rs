//! How a broker that a test plays greets.

use sequor_client::protocol::{BrokerId, ClusterId, Incarnation, Lineage, Member, ServerHello, VERSION};

pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);
pub(crate) const LINEAGE: Lineage = Lineage([1; 16]);

/// What a broker of the cluster answers to a hello.
pub(crate) fn hello(broker: BrokerId, leader: Option<BrokerId>, members: Vec<Member>) -> ServerHello {
    ServerHello {
        version: VERSION,
        cluster: CLUSTER,
        lineage: LINEAGE,
        broker,
        incarnation: Incarnation([broker.0 as u8; 16]),
        level: 1,
        capabilities: 0,
        batch_bytes_max: 1 << 20,
        in_flight_batches_max: 4096,
        leader,
        members,
    }
}
