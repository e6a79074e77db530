//! Data directories that a broker must not serve from. Two others serve meanwhile, and the broker does again when the
//! directory is what it was. A port that is taken is tried with processes, in `tools/tests/bad_input.rs`: these clusters
//! keep the ports of their brokers to themselves.

use std::{
    error::Error,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use sequor_broker::{
    setup::ClusterDir,
    testing::{Cluster, ClusterError},
};
use sequor_client::protocol::BrokerId;
use sequor_wal::disk::mmap::MmapDisk;

use super::{good::Good, run, start};

/// A directory in which nobody can make a file, not even root.
const UNWRITABLE: &str = "/proc/self";

/// What is put in the place of the data directory; what it gives is kept until the broker was started.
type Spoil = Box<dyn Fn(&Path) -> Option<MmapDisk>>;

/// An error with all its causes.
fn with_causes(error: &dyn Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Keeps the true directory aside, of which a copy is spoilt.
fn cases(
    kept: &Path,
    third: PathBuf,
    foreign: PathBuf,
) -> Vec<(&'static str, Spoil, &'static [&'static str])> {
    let kept = kept.to_path_buf();
    let with = move |file: &'static str, change: fn(&mut Vec<u8>)| -> Spoil {
        let kept = kept.clone();
        Box::new(move |data| {
            copy(&kept, data);
            let mut bytes = fs::read(data.join(file)).unwrap();
            change(&mut bytes);
            fs::write(data.join(file), bytes).unwrap();
            None
        })
    };
    vec![
        (
            "a directory that is not there",
            Box::new(|_| None),
            &[
                "there is no data directory at DATA: mount its disk if it had one, or make the directories of a new cluster \
               with `sequor certs init`",
            ],
        ),
        (
            "a wiped directory",
            Box::new(|data| {
                fs::create_dir(data).unwrap();
                None
            }),
            &[
                "cannot serve from the data directory DATA",
                "this data directory was never initialised: mount its disk if it has one, or make the directories of a new \
               cluster with `sequor certs init`",
            ],
        ),
        (
            "a file instead of a directory",
            Box::new(|data| {
                fs::write(data, "x").unwrap();
                None
            }),
            &["there is no data directory at DATA: "],
        ),
        (
            "a directory that cannot be written",
            Box::new(|data| {
                symlink(UNWRITABLE, data).unwrap();
                None
            }),
            &["could not make a lock in the data directory DATA", ""],
        ),
        (
            "the directory of another broker",
            Box::new(move |data| {
                copy(&third, data);
                None
            }),
            &[
                "`data` and `tls.cert` do not belong together: the data directory is that of broker THIRD, whose \
               certificate is sha256:",
            ],
        ),
        (
            "the directory of another cluster",
            Box::new(move |data| {
                copy(&foreign, data);
                None
            }),
            &[
                "`data` and `tls.cert` do not belong together: the data directory is that of broker OWN, whose \
               certificate is sha256:",
            ],
        ),
        (
            "an identity that is damaged",
            with("identity", |bytes| bytes[20] ^= 1),
            &["cannot serve from the data directory DATA", "identity is damaged at byte "],
        ),
        (
            "an identity that is cut off",
            with("identity", |bytes| bytes.truncate(9)),
            &["cannot serve from the data directory DATA", "identity is damaged at byte "],
        ),
        (
            "pins that are damaged",
            with("pins", |bytes| bytes[20] ^= 1),
            &["cannot serve from the data directory DATA", "pins is damaged at byte "],
        ),
        (
            "a directory that somebody else holds",
            Box::new(|data| {
                fs::create_dir(data).unwrap();
                Some(MmapDisk::open(data).unwrap())
            }),
            &["the data directory DATA is in use by another process: stop that one first"],
        ),
    ]
}

#[test]
fn directories_that_are_not_this_brokers() {
    run(async {
        let cluster = start(3).await;
        let leader = cluster.leader().await.unwrap();
        let others: Vec<_> = cluster.brokers().into_iter().filter(|id| *id != leader).collect();
        let (own, third) = (others[0], others[1]);
        let mut good = Good::new(&cluster).await;
        good.is_served_after("nothing").await;
        cluster.terminate(own).await.unwrap();

        let elsewhere = tempfile::tempdir().unwrap();
        let addresses: Vec<_> = cluster.dir().brokers().iter().map(|(_, address)| *address).collect();
        ClusterDir::create(&elsewhere.path().join("other"), &addresses).unwrap();
        let foreign = elsewhere.path().join(format!("other/broker-{own}"));
        let data = cluster.dir().path().join(format!("broker-{own}"));
        let third_data = cluster.dir().path().join(format!("broker-{third}"));
        let kept = elsewhere.path().join("kept");
        fs::rename(&data, &kept).unwrap();

        for (case, spoil, said) in cases(&kept, third_data, foreign) {
            let held = spoil(&data);
            let error = cluster.restart(own).await.expect_err(case);
            drop(held);
            let ClusterError::Broker { id, source } = &error else { panic!("{case}: {error:?}") };
            assert_eq!(*id, own);
            let told = with_causes(&**source);
            assert!(told.len() >= said.len(), "{case}: {told:?}");
            for (told, said) in told.iter().zip(said) {
                let said = said
                    .replace("DATA", &data.display().to_string())
                    .replace("OWN", &own.to_string())
                    .replace("THIRD", &third.to_string());
                assert!(told.starts_with(&said), "{case}: {told:?}");
            }
            remove(&data);
            good.is_served_after(case).await;
        }
        fs::rename(&kept, &data).unwrap();
        is_back(&cluster, own, &mut good).await;
        good.has_lost_nothing().await;
        cluster.stop().await.unwrap();
    });
}

fn remove(data: &Path) {
    match fs::symlink_metadata(data) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(data).unwrap(),
        Ok(_) => fs::remove_file(data).unwrap(),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
    }
}

/// The broker serves from its own directory again, and misses nothing.
async fn is_back(cluster: &Cluster, own: BrokerId, good: &mut Good) {
    cluster.restart(own).await.unwrap();
    good.is_served_after("the right directory").await;
    let end = good.end;
    let level = cluster.wait_until("it to have the whole log", |statuses| {
        statuses.get(&own).is_some_and(|status| status.end.0 >= end)
    });
    level.await.unwrap();
}
