//! How many files this process may have open.
//!
//! A broker keeps the file of each segment of its log open for as long as it runs: the usual limit of 1,024 would end it at
//! 64 GiB. That limit is there for programs that cannot count beyond it (`select`), and a process may raise it by itself up
//! to what its owner allows; whoever needs more asks for it where the service is described (`LimitNOFILE=`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to what is allowed. That it cannot be raised is no reason to end: what comes of it is said by who
/// meets it.
pub(crate) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::debug!(?current, ?maximum, "the limit of open files cannot be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_are_allowed() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // Not so few that other tests of this process could miss them.
        let lowered = maximum.map_or(4096, |most| most / 2);
        setrlimit(Resource::Nofile, Rlimit { current: Some(lowered), maximum }).unwrap();
        raise_limit();
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: maximum, maximum });
    }
}
