//! The genesis: what a cluster is before its first entry.
//!
//! `certs init` writes it into every data directory as the checkpoint at index 0, and it is the same, byte for
//! byte, in all of them. Whatever can change the result of applying an entry is in here and not in a broker's
//! configuration, so that two brokers cannot disagree by a typo.
//!
//! ```text
//! section        content (postcard)
//! 1  members     Vec<Member>: id, address, SHA-256 of the certificate
//! 2  settings    Settings: feature level, most producer names
//! ```
//!
//! Each section starts with one byte, its version. A section that this version does not know is refused and not
//! skipped: a broker that ignored a part of its own state would apply the log differently from its peers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use sequor_client::protocol::{BrokerId, limits::MEMBERS_MAX};

/// Id of the section that lists the members.
pub const MEMBERS: u32 = 1;
/// Id of the section of the settings that all brokers share.
pub const SETTINGS: u32 = 2;

/// First byte of every section that this version writes.
const SECTION_VERSION: u8 = 1;
/// Longest address of a member. Bytes.
const ADDRESS_BYTES_MAX: usize = 300;
/// Largest section that is read. Bytes.
const SECTION_BYTES_MAX: usize = 64 << 10;

/// The first state of a cluster.
///
/// Invariants, checked by [`Genesis::new`] and so true of every value:
/// - there is at least one member, and at most [`MEMBERS_MAX`];
/// - members ascend by id; no id is 0 (raft's "nobody");
/// - no two members share an address or a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    members: Vec<Member>,
    settings: Settings,
}

/// A broker that votes from the first entry on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id, never 0 and never used again for another disk.
    pub id: BrokerId,
    /// Where its peers and clients reach it: `host:port`.
    pub address: String,
    /// SHA-256 of its certificate in DER form: the only one that may speak for this id.
    pub certificate: [u8; 32],
}

/// Values that every broker of the cluster must have alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Feature level that the replicated state begins with.
    pub level: u16,
    /// Most names in the table of producers. Nothing is ever evicted from it: a full table refuses new names. Count.
    pub producers_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: 1, producers_max: 1_000_000 }
    }
}

/// Why something is not a genesis.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GenesisError {
    /// A cluster without brokers.
    #[error("a cluster needs at least one member")]
    NoMembers,
    /// More brokers than the protocol can list.
    #[error("{found} members are more than the limit of {MEMBERS_MAX}")]
    TooManyMembers {
        /// How many there are.
        found: usize,
    },
    /// Raft keeps the id 0 for "nobody".
    #[error("a member has the id 0, which is reserved")]
    ReservedId,
    /// An address that cannot be one.
    #[error("the address of member {id} is {bytes} bytes long; it must have 1 to {ADDRESS_BYTES_MAX}")]
    BadAddress {
        /// Whose.
        id: BrokerId,
        /// Its length, in bytes.
        bytes: usize,
    },
    /// Two members share what only one can have.
    #[error("members {first} and {second} have the same {what}")]
    Shared {
        /// `id`, `address` or `certificate`.
        what: &'static str,
        /// One of the two.
        first: BrokerId,
        /// The other.
        second: BrokerId,
    },
    /// A section is not there.
    #[error("section {id} is missing from the genesis")]
    Missing {
        /// Its id.
        id: u32,
    },
    /// A section is there that this version does not know.
    #[error("section {id} of the genesis is not known to this version: run a newer broker")]
    Unknown {
        /// Its id.
        id: u32,
    },
    /// A section was written by a newer version.
    #[error(
        "section {id} of the genesis has version {found}, this broker reads {SECTION_VERSION}: run a newer broker"
    )]
    Version {
        /// The section's id.
        id: u32,
        /// What was found; 0 stands for an empty section too.
        found: u8,
    },
    /// The bytes of a section cannot be what they claim to be.
    #[error("section {id} of the genesis is malformed")]
    Malformed {
        /// The section's id.
        id: u32,
    },
}

impl Genesis {
    /// Puts the members in order of their ids.
    ///
    /// # Errors
    /// If one of the invariants does not hold.
    pub fn new(mut members: Vec<Member>, settings: Settings) -> Result<Self, GenesisError> {
        if members.is_empty() {
            return Err(GenesisError::NoMembers);
        }
        if members.len() > MEMBERS_MAX {
            return Err(GenesisError::TooManyMembers { found: members.len() });
        }
        members.sort_by_key(|member| member.id);
        for (at, member) in members.iter().enumerate() {
            if member.id == BrokerId(0) {
                return Err(GenesisError::ReservedId);
            }
            if !(1..=ADDRESS_BYTES_MAX).contains(&member.address.len()) {
                return Err(GenesisError::BadAddress { id: member.id, bytes: member.address.len() });
            }
            if let Some(shared) = members[..at].iter().find_map(|earlier| shared(earlier, member)) {
                return Err(shared);
            }
        }
        Ok(Self { members, settings })
    }

    /// The members, ascending by id.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this id, if there is one.
    #[must_use]
    pub fn member(&self, id: BrokerId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// What all brokers share.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The sections of the checkpoint at index 0: id and content.
    #[must_use]
    pub fn encode(&self) -> Vec<(u32, Bytes)> {
        vec![(MEMBERS, section(&self.members)), (SETTINGS, section(&self.settings))]
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If a section is missing, unknown, newer than this version or malformed, or if an invariant does not hold.
    pub fn decode<'a>(sections: impl IntoIterator<Item = (u32, &'a [u8])>) -> Result<Self, GenesisError> {
        let (mut members, mut settings) = (None, None);
        for (id, content) in sections {
            match id {
                MEMBERS => members = Some(read(id, content)?),
                SETTINGS => settings = Some(read(id, content)?),
                _ => return Err(GenesisError::Unknown { id }),
            }
        }
        Self::new(
            members.ok_or(GenesisError::Missing { id: MEMBERS })?,
            settings.ok_or(GenesisError::Missing { id: SETTINGS })?,
        )
    }
}

/// What two members have in common that they must not.
fn shared(a: &Member, b: &Member) -> Option<GenesisError> {
    let what = if a.id == b.id {
        "id"
    } else if a.address == b.address {
        "address"
    } else if a.certificate == b.certificate {
        "certificate"
    } else {
        return None;
    };
    Some(GenesisError::Shared { what, first: a.id, second: b.id })
}

fn section(content: &impl Serialize) -> Bytes {
    let bytes = postcard::to_extend(content, vec![SECTION_VERSION]);
    Bytes::from(bytes.expect("postcard writes any of these types to memory"))
}

fn read<T: for<'de> Deserialize<'de>>(id: u32, content: &[u8]) -> Result<T, GenesisError> {
    let Some((&version, body)) = content.split_first() else {
        return Err(GenesisError::Version { id, found: 0 });
    };
    if version != SECTION_VERSION {
        return Err(GenesisError::Version { id, found: version });
    }
    if body.len() > SECTION_BYTES_MAX {
        return Err(GenesisError::Malformed { id });
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(GenesisError::Malformed { id }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        let certificate = [u8::try_from(id).unwrap(); 32];
        Member { id: BrokerId(id), address: format!("127.0.0.1:{}", 7400 + id), certificate }
    }

    fn decode(sections: &[(u32, Bytes)]) -> Result<Genesis, GenesisError> {
        Genesis::decode(sections.iter().map(|(id, content)| (*id, content.as_ref())))
    }

    #[test]
    fn comes_back_as_it_was_written_and_in_order() {
        let genesis = Genesis::new(vec![member(3), member(1), member(2)], Settings::default()).unwrap();
        assert_eq!(genesis.members().iter().map(|m| m.id.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(decode(&genesis.encode()), Ok(genesis.clone()));
        assert_eq!(genesis.member(BrokerId(2)), Some(&member(2)));
        assert_eq!(genesis.member(BrokerId(4)), None);
    }

    /// The bytes are on every disk of every cluster: they may grow by a version, never drift.
    #[test]
    fn golden_bytes() {
        let genesis = Genesis::new(vec![member(1)], Settings::default()).unwrap();
        let sections = genesis.encode();
        let mut members = vec![1, 1, 1, 14];
        members.extend_from_slice(b"127.0.0.1:7401");
        members.extend_from_slice(&[1; 32]);
        assert_eq!(sections[0], (MEMBERS, Bytes::from(members)));
        assert_eq!(sections[1], (SETTINGS, Bytes::from_static(&[1, 1, 0xc0, 0x84, 0x3d])));
    }

    #[test]
    fn refuses_what_breaks_an_invariant() {
        let new = |members| Genesis::new(members, Settings::default()).unwrap_err();
        assert_eq!(new(vec![]), GenesisError::NoMembers);
        assert_eq!(new(vec![member(0)]), GenesisError::ReservedId);
        assert_eq!(new((1..=65).map(member).collect()), GenesisError::TooManyMembers { found: 65 });
        let same_certificate = Member { certificate: [1; 32], ..member(2) };
        let (first, second) = (BrokerId(1), BrokerId(2));
        assert_eq!(
            new(vec![member(1), same_certificate]),
            GenesisError::Shared { what: "certificate", first, second }
        );
        let nowhere = Member { address: String::new(), ..member(2) };
        assert_eq!(new(vec![nowhere]), GenesisError::BadAddress { id: second, bytes: 0 });
    }

    #[test]
    fn refuses_sections_it_cannot_read() {
        let sections = Genesis::new(vec![member(1)], Settings::default()).unwrap().encode();
        assert_eq!(decode(&sections[..1]), Err(GenesisError::Missing { id: SETTINGS }));

        let mut unknown = sections.clone();
        unknown.push((9, Bytes::new()));
        assert_eq!(decode(&unknown), Err(GenesisError::Unknown { id: 9 }));

        let mut newer = sections.clone();
        newer[1].1 = Bytes::from_static(&[2, 1, 1]);
        assert_eq!(decode(&newer), Err(GenesisError::Version { id: SETTINGS, found: 2 }));

        for cut in 1..sections[0].1.len() {
            let mut short = sections.clone();
            short[0].1.truncate(cut);
            assert_eq!(decode(&short), Err(GenesisError::Malformed { id: MEMBERS }), "cut at {cut}");
        }
        let mut long = sections;
        long[1].1 = [&long[1].1[..], &[0]].concat().into();
        assert_eq!(decode(&long), Err(GenesisError::Malformed { id: SETTINGS }));
    }
}
