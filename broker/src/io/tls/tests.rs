//! Who is let in as what: whole handshakes, in memory.

use rustls::{
    ClientConnection, ServerConnection,
    pki_types::{PrivatePkcs8KeyDer, ServerName},
};
use sequor_client::protocol::ClusterId;

use super::*;
use crate::setup::authority::{Authority, Certified};

/// A cluster of three brokers, its two authorities, and a stranger's.
struct World {
    peers: Authority,
    clients: Authority,
    strangers: Authority,
    brokers: Vec<Certified>,
    members: Vec<Member>,
}

impl World {
    fn new() -> Self {
        let cluster = ClusterId([7; 16]);
        let peers = Authority::peers(cluster).unwrap();
        let brokers: Vec<_> = (1..=3).map(|id| broker(&peers, id)).collect();
        let members = (1..).zip(&brokers).map(|(id, certified)| Member {
            id: BrokerId(id),
            address: format!("[::1]:740{id}"),
            certificate: certified.fingerprint().0,
        });
        Self {
            clients: Authority::clients(cluster).unwrap(),
            strangers: Authority::peers(ClusterId([8; 16])).unwrap(),
            members: members.collect(),
            peers,
            brokers,
        }
    }

    fn material(&self, id: u64) -> Material {
        let certified = &self.brokers[usize::try_from(id).unwrap() - 1];
        Material {
            ca_peers: vec![self.peers.certificate()],
            ca_clients: vec![self.clients.certificate()],
            chain: vec![certified.certificate.der().clone()],
            key: key(certified),
        }
    }

    fn tls(&self, id: u64) -> Tls {
        Tls::new(self.material(id), BrokerId(id), &self.members).unwrap()
    }
}

fn broker(authority: &Authority, id: u64) -> Certified {
    authority.certify_broker(BrokerId(id)).unwrap()
}

fn key(certified: &Certified) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(certified.key.serialize_der()).into()
}

/// A caller that verifies brokers, offers `alpn`, and shows `certified`, if anything.
fn caller(world: &World, alpn: &[&[u8]], certified: Option<&Certified>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(&[world.peers.certificate()]).unwrap());
    let mut config = match certified {
        Some(certified) => {
            builder.with_client_auth_cert(vec![certified.certificate.der().clone()], key(certified)).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// Runs a handshake to its end, or to the first complaint of either side.
fn shake_hands(
    caller: &Arc<ClientConfig>,
    callee: &Arc<ServerConfig>,
    name: BrokerId,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(server_name(name)).unwrap();
    let mut client = ClientConnection::new(Arc::clone(caller), name)?;
    let mut server = ServerConnection::new(Arc::clone(callee))?;
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok((client, server))
}

/// What became of a caller, short enough for a table.
fn outcome(world: &World, alpn: &[&[u8]], certified: Option<&Certified>) -> String {
    let tls = world.tls(1);
    let Ok((_, server)) = shake_hands(&caller(world, alpn, certified), &tls.server, BrokerId(1)) else {
        return "no handshake".into();
    };
    match tls.role(server.alpn_protocol(), server.peer_certificates().unwrap_or_default()) {
        Ok(role) => format!("{role:?}"),
        Err(wrong) => format!("{wrong:?}").split([' ', '{']).next().unwrap().to_owned(),
    }
}

#[test]
fn who_is_let_in_as_what() {
    let world = World::new();
    let client = world.clients.certify_client().unwrap();
    let expired = world.clients.certify_client_until(2020).unwrap();
    let stranger = broker(&world.strangers, 2);
    let spare = broker(&world.peers, 2);
    let member = &world.brokers[1];
    let table: [(&[u8], Option<&Certified>, &str); 13] = [
        (ALPN_CLIENT, Some(&client), "Client"),
        (ALPN_CLIENT, Some(member), "NotAClient"),
        (ALPN_CLIENT, Some(&spare), "NotAClient"),
        (ALPN_CLIENT, Some(&stranger), "no handshake"),
        (ALPN_CLIENT, Some(&expired), "no handshake"),
        (ALPN_CLIENT, None, "no handshake"),
        (ALPN_PEER, Some(member), "Peer(BrokerId(2))"),
        (ALPN_PEER, Some(&client), "NotAPeer"),
        (ALPN_PEER, Some(&spare), "NotAMember"),
        (ALPN_PEER, Some(&stranger), "no handshake"),
        (ALPN_PEER, None, "no handshake"),
        (b"sequor-peer/2", Some(member), "no handshake"),
        (b"h3", Some(&client), "no handshake"),
    ];
    for (alpn, certified, expected) in table {
        let who = certified.map(Certified::fingerprint);
        assert_eq!(
            outcome(&world, &[alpn], certified),
            expected,
            "{} by {who:?}",
            String::from_utf8_lossy(alpn)
        );
    }
    assert_eq!(outcome(&world, &[], Some(&client)), "NoProtocol");
}

#[test]
fn a_link_reaches_the_broker_it_was_opened_to_and_no_other() {
    let world = World::new();
    let (one, two) = (world.tls(1), world.tls(2));
    let (client, server) = shake_hands(&one.outgoing, &two.server, BrokerId(2)).unwrap();
    one.check_peer(BrokerId(2), client.peer_certificates().unwrap()).unwrap();
    let role = two.role(server.alpn_protocol(), server.peer_certificates().unwrap()).unwrap();
    assert_eq!(role, Role::Peer(BrokerId(1)));

    let other = shake_hands(&one.outgoing, &world.tls(3).server, BrokerId(2));
    assert!(
        matches!(other, Err(rustls::Error::InvalidCertificate(_))),
        "broker 3 is not broker 2: {other:?}"
    );

    let chain = [world.brokers[2].certificate.der().clone()];
    let wrong = one.check_peer(BrokerId(2), &chain).unwrap_err();
    assert!(matches!(wrong, WrongRole::OtherBroker { found: BrokerId(3), .. }), "{wrong:?}");
    let spare = [broker(&world.peers, 2).certificate.der().clone()];
    let wrong = one.check_peer(BrokerId(2), &spare).unwrap_err();
    assert!(
        matches!(wrong, WrongRole::NotAMember { .. }),
        "a second certificate for the same name: {wrong:?}"
    );
}

#[test]
fn nothing_is_resumed_and_no_early_data_is_taken() {
    let world = World::new();
    let (one, two) = (world.tls(1), world.tls(2));
    for _ in 0..2 {
        let (client, server) = shake_hands(&one.outgoing, &two.server, BrokerId(2)).unwrap();
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert!(!client.is_early_data_accepted());
    }
}

#[test]
fn a_broker_starts_only_with_its_own_certificate() {
    let world = World::new();
    let other = Tls::new(world.material(1), BrokerId(2), &world.members).unwrap_err();
    assert!(matches!(other, TlsError::NotOurs { broker: BrokerId(2), .. }), "{other:?}");
    let nobody = Tls::new(world.material(1), BrokerId(9), &world.members).unwrap_err();
    assert!(matches!(nobody, TlsError::NotAMember { broker: BrokerId(9) }), "{nobody:?}");
    let mut mixed = world.material(1);
    mixed.key = key(&world.brokers[1]);
    let mixed = Tls::new(mixed, BrokerId(1), &world.members).unwrap_err();
    assert!(matches!(mixed, TlsError::Refused { .. }), "{mixed:?}");
}

#[test]
fn a_file_that_is_missing_or_empty_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("empty.pem"), "").unwrap();
    let files = |ca_peers: &str| TlsFiles {
        ca_peers: path(ca_peers),
        ca_clients: path("none.pem"),
        cert: path("none.pem"),
        key: path("none.pem"),
    };
    for name in ["none.pem", "empty.pem"] {
        let error = Material::load(&files(name)).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_fingerprint_is_the_sha256_of_the_certificate() {
    let of_nothing = Fingerprint::of(&CertificateDer::from(Vec::new()));
    let known = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(of_nothing.to_string(), known);
}
