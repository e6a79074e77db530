//! Datagrams that are no QUIC, faster than anybody would send them, beside a client that appends.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{RESERVED_BYTES_MAX, good::Good, reserved_ever, run, start};

/// Datagrams of garbage. Count.
const GARBAGE: u32 = 20_000;
/// The smallest first packet that QUIC looks at. Bytes.
const FIRST_PACKET_BYTES: usize = 1200;

/// The `n`th datagram: the same in every run.
fn garbage(n: u32) -> Vec<u8> {
    let mut state = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let length = if n.is_multiple_of(4) { 1 + n as usize % 1400 } else { FIRST_PACKET_BYTES };
    let mut bytes: Vec<u8> = (0..length).map(|_| byte()).collect();
    match n % 4 {
        // As it is.
        0 => {}
        // A long header of version 1: a first packet, with ids of 8 bytes, no token, and nothing that can be decrypted.
        1 => {
            bytes[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
            bytes[14] = 8;
            bytes[23] = 0;
            bytes[24..26].copy_from_slice(&(0x4000_u16 | 1174).to_be_bytes());
        }
        // A long header of a version that nobody speaks: it is answered with the versions that are spoken.
        2 => bytes[..6].copy_from_slice(&[0xc3, 0x5a, 0x5a, 0x5a, 0x5a, 8]),
        // A short header of a connection that nobody knows: it is answered with a reset.
        _ => bytes[0] = 0x40,
    }
    bytes
}

fn flood(target: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..GARBAGE {
        socket.send_to(&garbage(n), target).unwrap();
    }
}

#[test]
fn garbage_beside_a_client_that_appends() {
    run(async {
        let cluster = start(1).await;
        let mut good = Good::new(&cluster).await;
        let target = cluster.dir().brokers()[0].1;
        let before = reserved_ever();
        let done = Arc::new(AtomicBool::new(false));
        let done_too = Arc::clone(&done);
        let flooding = thread::spawn(move || {
            flood(target);
            done_too.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            good.is_served_after("some garbage").await;
        }
        flooding.join().unwrap();
        assert!(good.end > 0, "somebody appended meanwhile");
        good.is_served_after("all the garbage").await;
        assert!(reserved_ever() - before < RESERVED_BYTES_MAX);
        // And who comes new is let in.
        Good::new_reader(&cluster).await;
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}
