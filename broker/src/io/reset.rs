//! How the other end learns at once that this process is not the one it was connected to.
//!
//! A broker that is killed and started again knows nothing of its old connections, but their other ends still send to
//! it, and would do so until their idle timeout. QUIC's stateless reset ends that with one packet, if the new process
//! can make the token that the old one promised. So the key of the tokens is not drawn at each start: it is derived
//! from the broker's private key, which no one else has. Connection ids are plain random bytes, because ids that carry
//! a check of their own would make the new process ignore those of the old one.

use std::{sync::Arc, time::Duration};

use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig,
    crypto::{CryptoError, HmacKey},
};
use rustls::{
    crypto::{SecureRandom, ring, tls13::HkdfExpander},
    pki_types::PrivateKeyDer,
};

/// Shortest time between two resets: none. All clients of a broker that comes back are to hear of it at once, and whoever
/// is not answered asks again ever later. A reset is smaller than the packet that it answers, so nobody can use it against
/// a third.
const RESET_INTERVAL: Duration = Duration::ZERO;
const SALT: &[u8] = b"sequor stateless reset, version 1";
/// Length of a connection id. Bytes.
const ID_BYTES: usize = 8;
const SIGNATURE_BYTES: usize = 32;

/// Makes reset tokens: the same ones in every process that has the same private key.
struct ResetKey(Box<dyn HkdfExpander>);

/// Makes connection ids.
struct RandomIds(&'static dyn SecureRandom);

/// Gives an endpoint a key that outlives its process.
pub(super) fn keep_key(config: &mut EndpointConfig, private: &PrivateKeyDer<'_>) {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    let key = ResetKey(suite.hkdf_provider.extract_from_secret(Some(SALT), private.secret_der()));
    config.reset_key(Arc::new(key));
    config.min_reset_interval(RESET_INTERVAL);
    config.cid_generator(|| Box::new(RandomIds(ring::default_provider().secure_random)));
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        self.0.fill(&mut id).expect("the system gave random bytes when this process started");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

impl ResetKey {
    fn expand(&self, about: &[&[u8]], out: &mut [u8]) {
        self.0.expand_slice(about, out).expect("32 bytes are within what SHA-256 can expand to");
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        self.expand(&[b"token", data], signature_out);
    }

    fn signature_len(&self) -> usize {
        SIGNATURE_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mut expected = [0; SIGNATURE_BYTES];
        self.sign(data, &mut expected);
        if signature == expected { Ok(()) } else { Err(CryptoError) }
    }
}
