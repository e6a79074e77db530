//! Certificates that do not allow what their owner asks to be.

use sequor_broker::setup::ClusterDir;
use sequor_client::protocol::{ALPN_CLIENT, ALPN_PEER};

use super::{
    WRONG_ROLE,
    good::Good,
    run, start,
    wire::{Ending, Shown, closed, connect},
};

/// Alerts of TLS: their numbers in RFC 8446.
const UNKNOWN_CA: u8 = 48;
const DECRYPT_ERROR: u8 = 51;
const CERTIFICATE_REQUIRED: u8 = 116;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// How a connection is refused: by TLS with one of these alerts, or by the broker with a reason that begins like this.
enum Refused {
    Alert(&'static [u8]),
    Reason(&'static str),
}

#[test]
fn certificates() {
    run(async {
        let cluster = start(1).await;
        let leader = cluster.leader().await.unwrap();
        let mut good = Good::new(&cluster).await;
        let elsewhere = tempfile::tempdir().unwrap();
        let other = elsewhere.path().join("other");
        ClusterDir::create(&other, &[cluster.dir().brokers()[0].1]).unwrap();
        let own = cluster.dir().path();
        // Both authorities have the same name in every cluster but for the cluster's id.
        let foreign: &[u8] = &[UNKNOWN_CA, DECRYPT_ERROR];
        let cases: [(&str, &[u8], Shown<'_>, Refused); 8] = [
            (
                "a client's certificate for a peer",
                ALPN_PEER,
                Some((own, "client")),
                Refused::Reason(
                    "not a broker's certificate, signed by the authority in `tls.ca_peers`: sha256:",
                ),
            ),
            (
                "a broker's certificate for a client",
                ALPN_CLIENT,
                Some((own, "broker-1")),
                Refused::Reason(
                    "not a client's certificate, signed by the authority in `tls.ca_clients`: sha256:",
                ),
            ),
            ("no certificate, as a client", ALPN_CLIENT, None, Refused::Alert(&[CERTIFICATE_REQUIRED])),
            ("no certificate, as a peer", ALPN_PEER, None, Refused::Alert(&[CERTIFICATE_REQUIRED])),
            ("a client of another cluster", ALPN_CLIENT, Some((&other, "client")), Refused::Alert(foreign)),
            ("a broker of another cluster", ALPN_PEER, Some((&other, "broker-1")), Refused::Alert(foreign)),
            (
                "a protocol that nobody speaks",
                b"http/1.1",
                Some((own, "client")),
                Refused::Alert(&[NO_APPLICATION_PROTOCOL]),
            ),
            (
                "the next version of the client's protocol",
                b"sequor-client/2",
                Some((own, "client")),
                Refused::Alert(&[NO_APPLICATION_PROTOCOL]),
            ),
        ];
        for (case, alpn, shown, refused) in cases {
            let ending = match connect(&cluster, leader, alpn, shown).await {
                Ok(connection) => closed(&connection).await,
                Err(ending) => ending,
            };
            match (&ending, refused) {
                (Ending::Alert(alert), Refused::Alert(expected)) => {
                    assert!(expected.contains(alert), "{case}: {ending:?}");
                }
                (Ending::Closed(WRONG_ROLE, reason), Refused::Reason(expected)) => {
                    assert!(reason.starts_with(expected), "{case}: {ending:?}");
                }
                _ => panic!("{case}: {ending:?}"),
            }
            good.is_served_after(case).await;
        }
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}
