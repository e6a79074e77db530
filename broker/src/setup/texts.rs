//! The configuration of a broker and the context of a client, as they are written: for people to read and to change.

use std::net::SocketAddr;

use sequor_client::protocol::{BrokerId, ClusterId};

/// `broker-N.toml`.
pub(super) fn broker(id: BrokerId, address: SocketAddr) -> String {
    format!(
        "\
# Broker {id}. Paths are relative to this file. Each key can be given in the environment too: SEQUOR_DATA, SEQUOR_LISTEN,
# SEQUOR_TLS_CERT, ... What is commented out has the value that is shown.

data = \"broker-{id}\"        # its log, its vote, its identity: never copy it, never share it
listen = \"{address}\"   # UDP, for clients and for the other brokers

# tick_ms = 10              # step of the broker's timers
# heartbeat_ms = 30         # pause between two heartbeats of a leader
# election_ms = 150         # shortest silence that starts an election; the longest is twice that
# segment_bytes = 67108864  # size of one file of the log; three of them exist from the start
# mtu = 6500                # largest UDP payload that path discovery may try, in bytes
# connections_max = 1000    # clients connected at once

[tls]                       # certificates and keys, as PEM
ca_peers = \"ca-peers.pem\"
ca_clients = \"ca-clients.pem\"
cert = \"broker-{id}.pem\"
key = \"broker-{id}.key\"
"
    )
}

/// `context.toml`.
pub(super) fn context(cluster: ClusterId, brokers: &[(BrokerId, SocketAddr)]) -> String {
    let mut text = format!(
        "# How a client reaches this cluster. Paths are relative to this file.\n\ncluster = \"{cluster}\"\n"
    );
    for (id, address) in brokers {
        text += &format!("\n[[brokers]]\nid = {id}\naddress = \"{address}\"\n");
    }
    text + "\n[tls]\nca = \"ca-peers.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"\n"
}
