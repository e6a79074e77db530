//! Those who begin and do not go on: a handshake without its end, a connection without a hello. A broker keeps a place
//! for each of them, for five seconds; and a place that is not given back would be missed here.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use quinn::{
    AsyncUdpSocket, Connecting, ConnectionError, Endpoint, EndpointConfig, Runtime as _, TokioRuntime,
    UdpPoller,
    udp::{RecvMeta, Transmit},
};
use sequor_broker::testing::Cluster;
use sequor_client::protocol::{ALPN_CLIENT, BrokerId, StreamKind, frame::encode_client_hello};

use super::{
    BUSY, CONNECTIONS_MAX, TOO_SLOW,
    good::Good,
    run, start,
    wire::{Ending, Stream, bytes_of, client, client_config, closed, dial, hello},
};

const BROKER: BrokerId = BrokerId(1);
/// How long a broker waits for the end of a handshake, and for that of a hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(5);
/// Handshakes that are begun at once. A broker has 256 under way at most. Count.
const ATTEMPTS: usize = 3000;
/// Pause between two attempts of somebody who is turned away.
const PAUSE: Duration = Duration::from_millis(20);

/// A socket that hears nothing but that it has to prove its address. So whoever has it proves that, and says no more:
/// its handshakes pass for those of a client, and none ever ends.
#[derive(Debug)]
struct Deaf {
    inner: Arc<dyn AsyncUdpSocket>,
    mute: AtomicBool,
}

impl Deaf {
    fn bind() -> Arc<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let inner = TokioRuntime.wrap_udp_socket(socket).unwrap();
        Arc::new(Self { inner, mute: AtomicBool::new(false) })
    }
}

impl AsyncUdpSocket for Deaf {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.mute.load(Ordering::Relaxed) { Ok(()) } else { self.inner.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(context, buffers, metas);
        if let Poll::Ready(Ok(count)) = received {
            for (meta, buffer) in metas.iter_mut().zip(buffers).take(count) {
                // A long header of type 3 is a Retry.
                if buffer[0] >> 4 != 0xf {
                    meta.len = 0;
                }
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

fn endpoint(socket: Arc<dyn AsyncUdpSocket>) -> Endpoint {
    let (config, runtime) = (EndpointConfig::default(), Arc::new(TokioRuntime));
    Endpoint::new_with_abstract_socket(config, None, socket, runtime).unwrap()
}

/// A client's handshake, with or without an end.
fn handshake(endpoint: &Endpoint, cluster: &Cluster) -> Connecting {
    let shown = Some((cluster.dir().path(), "client"));
    dial(endpoint, cluster, BROKER, client_config(cluster, ALPN_CLIENT, shown))
}

#[test]
fn handshakes_that_never_end() {
    run(async {
        let cluster = start(1).await;
        let mut good = Good::new(&cluster).await;
        good.is_served_after("nothing yet").await;
        let deaf = Deaf::bind();
        let silent = endpoint(deaf.clone());
        let never: Vec<_> = (0..ATTEMPTS).map(|_| handshake(&silent, &cluster)).collect();

        let newcomer =
            endpoint(TokioRuntime.wrap_udp_socket(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap());
        let refused = loop {
            good.is_served_after("many beginnings").await;
            if let Err(error) = handshake(&newcomer, &cluster).await {
                break error;
            }
        };
        let ConnectionError::ConnectionClosed(close) = &refused else { panic!("{refused:?}") };
        assert_eq!(u64::from(close.error_code), 2, "refused, because all places are taken: {close}");

        // From here on nobody begins anew.
        deaf.mute.store(true, Ordering::Relaxed);
        let start = Instant::now();
        while let Err(refused) = handshake(&newcomer, &cluster).await {
            assert!(start.elapsed() < HANDSHAKE_TIMEOUT + SLACK, "kept out by the silent: {refused}");
            good.is_served_after("no end").await;
            tokio::time::sleep(PAUSE).await;
        }
        Good::new_reader(&cluster).await;
        drop(never);
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}

#[test]
fn connections_without_a_hello() {
    run(async {
        let cluster = start(1).await;
        let mut good = Good::new(&cluster).await;
        for round in 0..2 {
            let start = Instant::now();
            let mut silent = Vec::new();
            for number in 1..CONNECTIONS_MAX {
                let connection = client(&cluster, BROKER).await;
                // Some say nothing, some the first byte, some half of a hello.
                let hello = bytes_of(encode_client_hello(&hello(&cluster)).unwrap());
                let said = match number % 3 {
                    0 => None,
                    1 => Some(&hello[..0]),
                    _ => Some(&hello[..hello.len() / 2]),
                };
                let mut stream = None;
                if let Some(said) = said {
                    let mut opened = Stream::open(&connection, StreamKind::Control as u8).await;
                    opened.write(said).await;
                    stream = Some(opened);
                }
                silent.push((connection, stream));
            }
            let another = client(&cluster, BROKER).await;
            assert_eq!(closed(&another).await, Ending::Closed(BUSY, "too many clients are connected".into()));
            good.is_served_after("silence").await;
            for (connection, _stream) in silent {
                let reason = "the client took more than 5 seconds for its hello".to_owned();
                assert_eq!(closed(&connection).await, Ending::Closed(TOO_SLOW, reason), "in round {round}");
            }
            assert!(start.elapsed() < HANDSHAKE_TIMEOUT + SLACK, "{:?}", start.elapsed());
            Good::new_reader(&cluster).await;
        }
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}
