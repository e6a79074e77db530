//! Real bytes for the fuzz targets to begin with: the golden messages, logs that were written, brokers that talked.

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use sequor_broker::core::{Lane, PeerMessage, effect};
use sequor_client::protocol::{Epoch, Instance, OpenSession, Request, Resolve, Retire, Sequence};
use sequor_wal::{Checkpoint, Disk, Section, chain_start, disk::memory::MemoryDisk, sections::File};

use crate::trio::{CLUSTER, Trio, append, genesis};

/// Target, name, bytes.
pub(crate) type Seed = (&'static str, String, Vec<u8>);

pub(crate) fn all() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = sequor_wal::fuzz::seeds()
        .into_iter()
        .map(|(target, name, bytes)| (target, name.to_owned(), bytes))
        .collect();
    seeds.extend(wire());
    seeds.extend(talk());
    seeds.extend(files());
    seeds
}

/// `client/tests/golden`: name and bytes.
fn golden() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/tests/golden");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let bytes = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    };
    files.map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), bytes(&path))).collect()
}

/// Frames, batches, and answers in the ears of a client that has begun to write.
fn wire() -> Vec<Seed> {
    let golden = golden();
    let mut seeds = Vec::new();
    for (name, bytes) in &golden {
        let target = if name.starts_with("batch") { "client_batch" } else { "client_frames" };
        seeds.push((target, name.clone(), bytes.clone()));
        if name.starts_with("answer-") {
            seeds.push(("client_session", name.clone(), conversation(&golden, bytes)));
        }
    }
    let stream: Vec<u8> = ["client-hello", "request-open", "request-append", "request-end"]
        .iter()
        .flat_map(|name| golden[*name].clone())
        .collect();
    seeds.push(("client_frames", "stream".into(), stream));
    seeds
}

/// A client connects, opens its producer and its session, follows the log, appends, and hears `answer`; twice.
fn conversation(golden: &BTreeMap<String, Vec<u8>>, answer: &[u8]) -> Vec<u8> {
    const CONNECT: u8 = 4;
    const TIME: u8 = 1 | 4 << 3;
    let answered =
        |before: u8, frame: &[u8]| [&[before << 3][..], &(frame.len() as u16).to_le_bytes(), frame].concat();
    let mut script = vec![CONNECT | 3 << 3];
    script.extend(answered(0, &golden["answer-opened"]));
    script.extend(answered(1, &golden["answer-unknown-producer"]));
    script.extend(answered(0, &golden["answer-opened"]));
    for append in [2, 2 | 2 << 3] {
        script.extend([append, 7, TIME]);
        script.extend(answered(0, answer));
        script.extend(answered(1, answer));
        script.extend([3 | append, TIME]);
    }
    script
}

/// What three brokers said to each other while they elected one, wrote and applied; and what they wrote.
fn talk() -> Vec<Seed> {
    let mut trio = Trio::start();
    let mut said: Vec<(u64, PeerMessage)> = Vec::new();
    elect(&mut trio, &mut said);
    let id = trio.open("name");
    let requests = [
        append(id, 0, "one"),
        append(id, 1, "two"),
        append(id, 1, "two"),
        Request::Resolve(Resolve { producer: id, epoch: Epoch(1), sequence: Sequence(4), seal: true }),
        Request::OpenSession(OpenSession { instance: Instance([3; 16]), ttl_ms: 1000 }),
        Request::Retire(Retire { producer: id, epoch: Epoch(1) }),
    ];
    for request in requests {
        trio.ask(request);
        settle(&mut trio, &mut said);
    }
    let mut seeds = Vec::new();
    let mut kinds = BTreeMap::new();
    for (_, message) in &said {
        let name = format!("{:?}-{}", message.raft.get_msg_type(), message.raft.entries.len()).to_lowercase();
        kinds.entry(name).or_insert(message);
    }
    for (name, message) in kinds {
        seeds.push(("broker_peer_message", name, message.encode().concat()));
    }
    for (name, lane, byte) in [("urgent", Lane::Urgent, 1), ("bulk", Lane::Bulk, 2)] {
        let messages = said.iter().filter(|(_, message)| message.lane() == lane).take(6);
        let stream = messages.flat_map(|(_, message)| framed(&message.encode().concat()));
        seeds.push(("broker_peer_stream", name.into(), [6, byte].into_iter().chain(stream).collect()));
    }
    let hello = trio.cores[0].peer_hello(7).encode();
    seeds.push(("broker_peer_stream", "hello".into(), [&[40, 1][..], &framed(&hello)].concat()));

    let follower = said.iter().filter(|(to, _)| *to == 2);
    let follower = follower.flat_map(|(_, message)| op(0, &message.encode().concat()));
    seeds.push(("broker_core", "follower".into(), follower.collect()));
    seeds.push(("broker_core", "leader".into(), leader()));
    let one =
        leader().into_iter().chain(said.iter().flat_map(|(_, message)| op(1, &message.encode().concat())));
    seeds.push(("broker_core", "deposed".into(), one.take(4000).collect()));

    let log = trio.cores[0].log();
    let entries = log.entries(1, log.last_index() + 1, u64::MAX).unwrap();
    let entries: Vec<u8> = entries.iter().flat_map(|entry| op_body(&entry.data)).collect();
    seeds.push(("broker_effects", "log".into(), entries));
    let renew = [effect::Effect::Renew(id), effect::Effect::Expire(id)];
    let envelope = effect::Envelope { level: 1, log_time_ms: 5000, wall_ms: 0 };
    seeds.push(("broker_effects", "expiry".into(), op_body(&effect::encode(envelope, &renew))));
    seeds
}

fn elect(trio: &mut Trio, said: &mut Vec<(u64, PeerMessage)>) {
    while !trio.cores[0].leads() {
        trio.now = trio.now + crate::trio::TICK_US;
        let now = trio.now;
        trio.cores[0].handle_tick(now);
        settle(trio, said);
    }
}

/// As [`Trio::settle`], listening.
fn settle(trio: &mut Trio, said: &mut Vec<(u64, PeerMessage)>) {
    (1..=3).for_each(|id| trio.pass(id));
    loop {
        let synced = (1..=3).filter(|id| trio.sync(*id)).count();
        if synced == 0 && trio.messages.is_empty() {
            return;
        }
        for id in 1..=3 {
            let heard = trio.messages.iter().filter(|(_, to, _)| *to == id);
            said.extend(heard.map(|(_, to, message)| (*to, message.clone())));
            trio.deliver_to(id);
        }
    }
}

/// Broker 1 is elected, opens a name, writes, and is acknowledged.
fn leader() -> Vec<u8> {
    const TICKS: u8 = 2 | 31 << 3;
    const VOTES: [u8; 2] = [6, 6 | 1 << 3];
    const ACKNOWLEDGED: u8 = 7;
    const OPEN: u8 = 4 | 3 << 3;
    const END: u8 = 4;
    const APPEND: u8 = 3;
    let mut script = vec![TICKS, VOTES[0], VOTES[1], ACKNOWLEDGED, OPEN, ACKNOWLEDGED, ACKNOWLEDGED];
    for _ in 0..3 {
        script.extend([APPEND, END, APPEND, ACKNOWLEDGED, ACKNOWLEDGED, 2]);
    }
    script
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_le_bytes()[..], message].concat()
}

fn op(op: u8, body: &[u8]) -> Vec<u8> {
    [&[op][..], &op_body(body)].concat()
}

fn op_body(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_le_bytes()[..], body].concat()
}

/// The files that a broker reads at its start, and the one of a client.
fn files() -> Vec<Seed> {
    let disk = MemoryDisk::new();
    let sections: Vec<Section> =
        genesis().encode().into_iter().map(|(id, content)| Section { id, content }).collect();
    let members = sections[0].content.to_vec();
    let plain = File { sections: sections.clone() };
    plain.save(&disk, "genesis").unwrap();
    Checkpoint { index: 0, term: 0, chain: chain_start(&CLUSTER.0), sections }.save(&disk).unwrap();
    let pin = |peer: u64| Bytes::from([&peer.to_le_bytes()[..], &[peer as u8; 16]].concat());
    let pins = (2..=3_u8).map(|peer| Section { id: u32::from(peer) - 1, content: pin(peer.into()) });
    File { sections: pins.collect() }.save(&disk, "pins").unwrap();
    let image = |name: &str| disk.read(name).unwrap().unwrap().to_vec();
    vec![
        ("broker_sections", "genesis".into(), image("genesis")),
        ("broker_sections", "checkpoint".into(), image("checkpoint-00000000000000000000")),
        ("broker_sections", "pins".into(), image("pins")),
        ("broker_sections", "members".into(), members),
        ("broker_config", "all-keys".into(), BROKER.into()),
        ("broker_config", "least".into(), BROKER.replace("heartbeat_ms = 30\n", "").into()),
        ("client_context", "context".into(), CONTEXT.into()),
        ("cli_pieces", "lines".into(), b"\x0ak:v\n:v\n\nk:v:w\r\nlast".to_vec()),
        ("cli_pieces", "binary".into(), b"\x2b\0\0\0\x03k:v\0\0\0\0\0\0\0\x02\n\n".to_vec()),
        ("cli_pieces", "cut-off".into(), b"\x31\0\0\0\x02ab\0\0\0\x05four".to_vec()),
    ]
}

const BROKER: &str = r#"data = "data"
listen = "127.0.0.1:7400"
tick_ms = 10
heartbeat_ms = 30
election_ms = 150
segment_bytes = 67108864
mtu = 1452
connections_max = 1000
[tls]
ca_peers = "ca-peers.pem"
ca_clients = "ca-clients.pem"
cert = "broker.pem"
key = "broker.key"
"#;

const CONTEXT: &str = r#"cluster = "000102030405060708090a0b0c0d0eff"
[[brokers]]
id = 1
address = "127.0.0.1:7400"
[[brokers]]
id = 2
address = "[::1]:7401"
[tls]
ca = "ca-peers.pem"
cert = "/elsewhere/client.pem"
key = "client.key"
"#;
