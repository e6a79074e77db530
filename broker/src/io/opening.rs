//! From a configuration to a broker that can run: everything that may be wrong is found out here, before anybody can
//! connect.
//!
//! ```text
//! data directory ─► lock ─► identity ─► genesis ─► certificates ─► incarnation ─► log ─► core
//! ```
//!
//! The directory is never made here: an empty disk under an old name must not look like a new broker. What is drawn
//! here, once and synced before the first word to a peer, is its incarnation.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Instant};

use quinn::{AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use rustls::crypto::ring;
use sequor_client::{
    protocol::{BrokerId, ClusterId, Incarnation, Lineage},
    transport::{self, Profile},
};
use sequor_wal::{Checkpoint, Disk, Identity, Log, VoteState, disk::mmap::MmapDisk};

use super::{
    DataError, ServeError,
    broker::{Broker, Network},
    counted_socket::CountedSocket,
    host::Host,
    limits::{INCOMING_BYTES_MAX, INCOMING_MAX},
    peer_link::PeerLink,
    pins::Pins,
    reset,
    tls::{Material, Tls},
};
use crate::{
    config::Config,
    core::{
        Core, Settings, Timing,
        genesis::{Genesis, Member},
        time::Time,
    },
};

/// Opens the data directory and binds the socket. Reads the whole log once.
///
/// # Errors
///
/// See [`ServeError`]: nothing was changed in the directory, or only what recovery may change.
pub(super) fn open(config: &Config, host: &dyn Host) -> Result<Rc<Broker>, ServeError> {
    let disk: Arc<dyn Disk> = Arc::new(MmapDisk::open(&config.data)?);
    let unusable = |source| ServeError::Data { dir: config.data.clone(), source };
    let mut identity = Identity::load(&*disk).map_err(|error| unusable(error.into()))?;
    let genesis = genesis(&*disk).map_err(unusable)?;
    let own = BrokerId(identity.broker);
    let material = Material::load(&config.tls)?;
    let mut endpoint_config = transport::endpoint_config(config.mtu);
    reset::keep_key(&mut endpoint_config, &material.key);
    let tls = Tls::new(material, own, genesis.members())?;
    if identity.incarnation.is_none() {
        let drawn = random()?;
        identity.set_incarnation(&*disk, drawn).map_err(|error| unusable(error.into()))?;
    }
    let pins = Pins::load(Arc::clone(&disk)).map_err(|error| unusable(error.into()))?;
    let links = links(own, genesis.members());
    let (log, commit) = open_log(config, disk, &identity).map_err(unusable)?;
    let core = Core::new(settings(config, &identity, genesis)?, log, commit, Time(0));
    let network = bind(config, host, endpoint_config, tls)?;
    let life = u64::from_le_bytes(random()?);
    Ok(Broker::new(core, Instant::now(), life, pins, links, network))
}

fn genesis(disk: &dyn Disk) -> Result<Genesis, DataError> {
    let checkpoint = Checkpoint::load_latest(disk)?.ok_or(DataError::NoGenesis)?;
    let sections = checkpoint.sections.iter().map(|section| (section.id, &section.content[..]));
    Ok(Genesis::decode(sections)?)
}

fn open_log(config: &Config, disk: Arc<dyn Disk>, identity: &Identity) -> Result<(Log, u64), DataError> {
    let settings = sequor_wal::Settings {
        segment_bytes: config.segment_bytes,
        alignment: disk.sector_bytes(),
        ..Default::default()
    };
    let opened = sequor_wal::open(disk, identity, settings)?;
    match opened.vote {
        VoteState::Known(_) => Ok((opened.log, opened.commit)),
        VoteState::Damaged(damage) => {
            Err(DataError::VoteDamaged { broker: BrokerId(identity.broker), damage })
        }
    }
}

fn settings(config: &Config, identity: &Identity, genesis: Genesis) -> Result<Settings, ServeError> {
    let incarnation = identity.incarnation.expect("drawn and synced before the log is opened");
    let ticks = |ms: u64| u32::try_from(ms / config.tick_ms).expect("the configuration bounds it");
    let seed = u64::from_le_bytes(random()?);
    Ok(Settings {
        cluster: ClusterId(identity.cluster),
        lineage: Lineage(identity.lineage),
        broker: BrokerId(identity.broker),
        incarnation: Incarnation(incarnation),
        genesis,
        tick_us: config.tick_ms * 1000,
        timing: Timing {
            heartbeat_ticks: ticks(config.heartbeat_ms),
            election_ticks: ticks(config.election_ms),
        },
        seed,
    })
}

fn links(own: BrokerId, members: &[Member]) -> BTreeMap<BrokerId, Rc<PeerLink>> {
    let peers = members.iter().filter(|member| member.id != own);
    peers.map(|member| (member.id, Rc::new(PeerLink::new(member)))).collect()
}

fn bind(
    config: &Config,
    host: &dyn Host,
    endpoint_config: EndpointConfig,
    tls: Tls,
) -> Result<Network, ServeError> {
    let bound = |source| ServeError::Bind { address: config.listen, source };
    let mut server = ServerConfig::with_crypto(tls.server());
    server
        .transport_config(transport::config(Profile::Broker, config.mtu))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX);
    let mut peer_config = ClientConfig::new(tls.outgoing());
    peer_config.transport_config(transport::config(Profile::Peer, config.mtu));
    let socket = Arc::new(CountedSocket::new(host.socket(config.listen).map_err(bound)?));
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(
        endpoint_config,
        Some(server),
        Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>,
        runtime,
    );
    let endpoint = endpoint.map_err(bound)?;
    let listens_on = endpoint.local_addr().map_err(bound)?;
    let clients_max = usize::try_from(config.connections_max).expect("the configuration bounds it");
    Ok(Network { endpoint, socket, listens_on, tls, peer_config, clients_max })
}

/// Bytes from the operating system, good enough for keys.
fn random<const N: usize>() -> Result<[u8; N], ServeError> {
    let mut bytes = [0; N];
    let source = ring::default_provider().secure_random;
    source.fill(&mut bytes).map_err(|_| ServeError::NoRandomness)?;
    Ok(bytes)
}
