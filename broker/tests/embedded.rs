//! The embedded cluster, as the tests of a user have it: what is done to it happens, and nothing is lost or doubled.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    error::Error,
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use sequor_broker::{
    config::Layer,
    io::ServeError,
    testing::{Cluster, ClusterError},
};
use sequor_client::{
    Acknowledgement, AppendError, Client, Producer, Record,
    protocol::{BrokerId, Offset, Role, Sequence},
};
use sequor_wal::disk::mmap::{MmapDisk, OpenDirError};
use tokio::time::timeout;

/// No test takes longer, whatever hangs.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);
/// For an answer that is not to come: long enough that it would have come.
const SHORT_DEADLINE: Duration = Duration::from_secs(2);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(TEST_TIMEOUT, test).await.expect("the test hangs") });
}

async fn start(brokers: u64) -> Cluster {
    Cluster::start(brokers).await.unwrap()
}

async fn connect(cluster: &Cluster) -> Client {
    Client::connect(&cluster.client_config()).await.unwrap()
}

async fn open(client: &Client) -> Producer {
    client.producer("p").open().await.unwrap()
}

/// Hands a record over.
async fn hand_over(producer: &Producer, value: &'static str) -> Acknowledgement {
    producer.append(Record::new(value)).await.unwrap()
}

/// Appends a record and waits for it; its offset.
async fn append(producer: &Producer, value: &'static str) -> u64 {
    hand_over(producer, value).await.await.unwrap().first_offset.0
}

/// The whole log.
async fn read(client: &Client) -> Vec<String> {
    let end = client.end().await.unwrap().end;
    let mut tail = client.tail(Offset(0)).await.unwrap();
    let mut values = Vec::new();
    while tail.position() < end {
        let value = tail.next().await.unwrap().record.value.unwrap();
        values.push(String::from_utf8(value.to_vec()).unwrap());
    }
    values
}

fn place(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Waits until so many brokers have the log up to `end`.
async fn reach(cluster: &Cluster, end: u64, brokers: usize) {
    let what = format!("{brokers} brokers to have the log up to {end}");
    let reached = cluster.wait_until(&what, |statuses| {
        statuses.values().filter(|status| status.end >= Offset(end)).count() >= brokers
    });
    reached.await.unwrap();
}

#[test]
fn appends_go_on_through_the_death_of_the_leader() {
    run(async {
        let cluster = start(3).await;
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        assert_eq!(append(&producer, "a").await, 0);

        let leader = cluster.leader().await.unwrap();
        cluster.kill(leader).await.unwrap();
        assert_eq!(cluster.status(leader), None);
        assert_eq!(append(&producer, "b").await, 1);
        assert_ne!(cluster.leader().await.unwrap(), leader);

        cluster.restart(leader).await.unwrap();
        reach(&cluster, 2, 3).await;
        assert_eq!(read(&client).await, ["a", "b"]);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn what_was_acknowledged_survives_the_death_of_all() {
    run(async {
        let cluster = start(3).await;
        let client = connect(&cluster).await;
        append(&open(&client).await, "a").await;
        for id in cluster.brokers() {
            cluster.kill(id).await.unwrap();
        }
        for id in cluster.brokers() {
            cluster.restart(id).await.unwrap();
        }
        assert_eq!(read(&client).await, ["a"]);
    });
}

#[test]
fn a_paused_leader_is_replaced_and_knows_it_when_it_wakes_up() {
    run(async {
        let cluster = start(3).await;
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "a").await;

        let leader = cluster.leader().await.unwrap();
        cluster.pause(leader).await.unwrap();
        let before = cluster.status(leader).unwrap();
        assert_eq!(append(&producer, "b").await, 1);
        let second = cluster.leader().await.unwrap();
        assert_ne!(second, leader);
        assert_eq!(cluster.status(leader).unwrap(), before, "it stands still");

        cluster.resume(leader).unwrap();
        reach(&cluster, 2, 3).await;
        let woken = cluster.status(leader).unwrap();
        assert!(woken.role != Role::Leader && woken.term > before.term, "{woken:?}");
        assert_eq!(append(&producer, "c").await, 2);
        assert_eq!(read(&client).await, ["a", "b", "c"]);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_paused_broker_can_be_killed() {
    run(async {
        let cluster = start(1).await;
        let only = cluster.leader().await.unwrap();
        cluster.pause(only).await.unwrap();
        cluster.kill(only).await.unwrap();
        cluster.restart(only).await.unwrap();
        assert_eq!(cluster.leader().await.unwrap(), only);
        cluster.pause(only).await.unwrap();
    });
}

/// The client hears nobody but a leader that nobody else hears.
#[test]
fn what_is_appended_on_an_island_is_unknown_and_written_at_most_once() {
    run(async {
        let cluster = start(3).await;
        let client = connect(&cluster).await;
        append(&open(&client).await, "a").await;

        let leader = cluster.leader().await.unwrap();
        let producer = client.producer("p").deadline(SHORT_DEADLINE).open().await.unwrap();
        cluster.partition(&[leader]).unwrap();
        for other in cluster.brokers().into_iter().filter(|id| *id != leader) {
            cluster.drop_replies(other, true).unwrap();
        }
        let outcome = hand_over(&producer, "b").await.await;
        assert!(matches!(outcome, Err(AppendError::Unknown { .. })), "{outcome:?}");
        assert_ne!(cluster.leader().await.unwrap(), leader, "the others go on");
        assert_eq!(cluster.status(leader).unwrap().end, Offset(1), "it cannot be confirmed on the island");

        cluster.heal();
        for other in cluster.brokers() {
            cluster.drop_replies(other, false).unwrap();
        }
        // What is unknown is asked, not guessed: the number that comes next is the record's own, if it is not there.
        let producer = open(&client).await;
        if producer.opened().next == Sequence(1) {
            append(&producer, "b").await;
        }
        assert_eq!(append(&producer, "c").await, 2);
        assert_eq!(read(&client).await, ["a", "b", "c"]);
        cluster.stop().await.unwrap();
    });
}

/// The client hears everybody: to it, a leader that is cut off is a pause.
#[test]
fn an_append_to_a_leader_that_is_cut_off_is_written_once_by_the_next() {
    run(async {
        let cluster = start(3).await;
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "a").await;
        let leader = cluster.leader().await.unwrap();
        cluster.partition(&[leader]).unwrap();
        assert_eq!(append(&producer, "b").await, 1);
        assert_ne!(cluster.leader().await.unwrap(), leader);
        assert_eq!(cluster.status(leader).unwrap().end, Offset(1), "it hears of nothing");
        cluster.heal();
        reach(&cluster, 2, 3).await;
        assert_eq!(read(&client).await, ["a", "b"]);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_record_whose_answer_was_lost_is_there_once() {
    run(async {
        let cluster = start(3).await;
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "a").await;

        let leader = cluster.leader().await.unwrap();
        cluster.drop_replies(leader, true).unwrap();
        let answer = hand_over(&producer, "b").await;
        reach(&cluster, 2, 3).await;
        cluster.kill(leader).await.unwrap();
        cluster.drop_replies(leader, false).unwrap();

        let receipt = answer.await.unwrap();
        assert_eq!((receipt.first_offset, receipt.duplicate), (Offset(1), true), "sent again, written once");
        assert_eq!(read(&client).await, ["a", "b"]);
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_muted_broker_is_heard_again() {
    run(async {
        let cluster = start(1).await;
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        let only = cluster.leader().await.unwrap();
        cluster.drop_replies(only, true).unwrap();
        let answer = hand_over(&producer, "a").await;
        reach(&cluster, 1, 1).await;
        cluster.drop_replies(only, false).unwrap();
        assert_eq!(answer.await.unwrap().first_offset, Offset(0));
        cluster.stop().await.unwrap();
    });
}

#[test]
fn a_named_directory_stays_and_goes_on() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        let cluster = Cluster::builder().brokers(1).data(&path).start().await.unwrap();
        let client = connect(&cluster).await;
        append(&open(&client).await, "a").await;
        cluster.stop().await.unwrap();
        client.close().await;

        let cluster = Cluster::builder().data(&path).start().await.unwrap();
        assert_eq!(cluster.brokers(), [BrokerId(1)]);
        let client = connect(&cluster).await;
        assert_eq!(append(&open(&client).await, "b").await, 1);
        assert_eq!(read(&client).await, ["a", "b"]);
        drop(cluster);
        assert!(path.join("context.toml").exists());

        let other = Cluster::builder().brokers(3).data(&path).start().await.unwrap_err();
        assert!(matches!(other, ClusterError::Other { .. }), "{other}");
        let other = Cluster::builder().listen(place(1)).data(&path).start().await.unwrap_err();
        assert!(matches!(other, ClusterError::Other { .. }), "{other}");
    });
}

#[test]
fn a_directory_or_a_port_that_is_in_use_is_named() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kept");
        let cluster = Cluster::builder().brokers(1).data(&path).start().await.unwrap();
        let busy = cluster.dir().brokers()[0].1;
        let again = Cluster::builder().data(&path).start().await.unwrap_err();
        let ClusterError::Broker { id: BrokerId(1), source } = &again else { panic!("{again}") };
        assert!(matches!(&**source, ServeError::Directory(OpenDirError::InUse { .. })), "{source}");

        let new = dir.path().join("new");
        let taken = Cluster::builder().brokers(1).data(&new).listen(busy).start().await.unwrap_err();
        assert!(matches!(taken, ClusterError::Listen { address, .. } if address == busy), "{taken}");
        assert!(!new.exists(), "nothing is made in vain");
    });
}

#[test]
fn a_dropped_cluster_leaves_nothing_behind() {
    run(async {
        let cluster = start(3).await;
        cluster.leader().await.unwrap();
        cluster.pause(BrokerId(2)).await.unwrap();
        let (path, brokers) = (cluster.dir().path().to_path_buf(), cluster.dir().brokers().to_vec());
        drop(cluster);
        assert!(!path.exists());
        for (_, address) in brokers {
            UdpSocket::bind(address).expect("the port is free again");
        }
    });
}

/// So that it can be shared between the tasks of a runtime with many threads.
#[test]
fn a_cluster_and_what_it_does_can_be_sent() {
    fn sent<T: Send>(thing: T) -> T {
        thing
    }
    fn shared<T: Sync>(thing: T) -> T {
        thing
    }
    run(async {
        let cluster = shared(sent(sent(Cluster::start(1)).await.unwrap()));
        let only = sent(cluster.leader()).await.unwrap();
        sent(cluster.wait_until("nothing", |_| true)).await.unwrap();
        sent(cluster.pause(only)).await.unwrap();
        cluster.resume(only).unwrap();
        sent(cluster.kill(only)).await.unwrap();
        sent(cluster.restart(only)).await.unwrap();
        drop(sent(cluster.failure()));
        sent(cluster.stop()).await.unwrap();
    });
}

#[test]
fn what_a_cluster_does_not_have_is_named() {
    run(async {
        let cluster = start(1).await;
        let nobody = BrokerId(2);
        for refused in [
            cluster.kill(nobody).await,
            cluster.terminate(nobody).await,
            cluster.restart(nobody).await,
            cluster.pause(nobody).await,
            cluster.resume(nobody),
            cluster.partition(&[nobody]),
            cluster.drop_replies(nobody, true),
        ] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, ClusterError::NoSuchBroker { id: BrokerId(2), count: 1 }), "{refused}");
        }
        let only = BrokerId(1);
        assert!(matches!(cluster.restart(only).await, Err(ClusterError::Running { .. })));
        cluster.kill(only).await.unwrap();
        cluster.kill(only).await.unwrap();
        assert!(matches!(cluster.pause(only).await, Err(ClusterError::NotRunning { .. })));
        assert!(matches!(cluster.resume(only), Err(ClusterError::NotRunning { .. })));
    });
}

#[test]
fn every_wait_ends_at_the_deadline_and_says_what_the_brokers_say() {
    run(async {
        let deadline = Duration::from_secs(5);
        let cluster = Cluster::builder().brokers(3).deadline(deadline).start().await.unwrap();
        let leader = cluster.leader().await.unwrap();
        for id in cluster.brokers().into_iter().filter(|id| *id != leader) {
            cluster.pause(id).await.unwrap();
        }
        let begun = Instant::now();
        let late = cluster.leader().await.unwrap_err();
        assert!(begun.elapsed() >= deadline, "one alone is no majority");
        let told = late.to_string();
        for words in ["in vain for a leader", "broker 1 is ", "broker 2 is ", "broker 3 is "] {
            assert!(told.contains(words), "{words:?} is not in: {told}");
        }
    });
}

#[test]
fn a_broker_whose_disk_fails_ends_alone() {
    run(async {
        let cluster = start(3).await;
        let client = connect(&cluster).await;
        let producer = open(&client).await;
        append(&producer, "a").await;
        let leader = cluster.leader().await.unwrap();
        fs::remove_dir_all(cluster.dir().path().join(format!("broker-{leader}"))).unwrap();

        let mebibyte: &'static str = "x".repeat(512 << 10).leak();
        let appended = async {
            for _ in 0..32 {
                append(&producer, mebibyte).await;
            }
        };
        let (failure, ()) = tokio::join!(cluster.failure(), appended);
        let ClusterError::Broker { id, source } = &failure else { panic!("{failure}") };
        assert!(*id == leader && matches!(&**source, ServeError::Disk(_)), "{failure}: {source}");
        assert!(source.source().is_some(), "it says which file");
        assert!(cluster.leader().await.is_err(), "a cluster in which somebody failed is not well");
        let still_there = client.end().await.unwrap().end;
        assert_eq!(still_there, Offset(33), "the others have all of it");
    });
}

#[test]
fn a_damaged_log_is_refused_at_the_restart() {
    run(async {
        let cluster = start(1).await;
        let client = connect(&cluster).await;
        append(&open(&client).await, "a").await;
        let only = BrokerId(1);
        cluster.terminate(only).await.unwrap();
        let data = cluster.dir().path().join("broker-1");
        damage(&data);
        let refused = cluster.restart(only).await.unwrap_err();
        assert!(matches!(refused, ClusterError::Broker { id: BrokerId(1), .. }), "{refused}");
        MmapDisk::open(&data).expect("nobody has it open");
        let again = cluster.restart(only).await.unwrap_err();
        assert!(matches!(again, ClusterError::Broker { id: BrokerId(1), .. }), "{again}");
    });
}

/// Loses who the broker is.
fn damage(data: &Path) {
    fs::remove_file(data.join("identity")).unwrap();
}

#[test]
fn settings_go_over_the_files() {
    run(async {
        let settings = Layer { segment_bytes: Some(16 << 20), ..Layer::default() };
        let cluster = Cluster::builder().brokers(1).settings(settings).start().await.unwrap();
        cluster.leader().await.unwrap();
        let files = fs::read_dir(cluster.dir().path().join("broker-1")).unwrap();
        let sizes: Vec<_> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
        assert!(sizes.contains(&(16 << 20)), "{sizes:?}");
        cluster.stop().await.unwrap();
    });
}
