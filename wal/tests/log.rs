//! A log in use: tickets, watermarks, generations, spares.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rig;

use rig::{Rig, all, entry, segment, small};
use sequor_wal::disk::memory::MemoryDisk;
use sequor_wal::{Settings, Vote};

#[test]
fn one_ticket_is_out_at_a_time_and_the_next_takes_all_that_gathered() {
    let mut rig = Rig::new();
    rig.make_spares().unwrap();
    rig.log.append(vec![entry(1, 1, "a")]).unwrap();
    let first = rig.log.poll_ticket().unwrap();
    rig.log.append(vec![entry(2, 1, "b")]).unwrap();
    rig.log.append(vec![entry(3, 1, "c")]).unwrap();
    assert!(rig.log.poll_ticket().is_none());
    assert_eq!((first.number(), first.range(), first.bytes()), (1, Some((1, 1)), 512));
    rig.log.handle_synced(first.run().unwrap());
    assert_eq!((rig.log.durable(), rig.log.last_index()), (1, 3));
    let second = rig.log.poll_ticket().unwrap();
    assert_eq!(second.range(), Some((2, 3)));
    rig.log.handle_synced(second.run().unwrap());
    assert!(rig.log.poll_ticket().is_none());
}

#[test]
fn a_ticket_costs_one_write_and_one_sync() {
    let mut rig = Rig::new();
    rig.put(1, "first");
    let before = rig.disk.counters(&segment(1));
    rig.log.append((2..6).map(|index| entry(index, 1, "some")).collect()).unwrap();
    rig.settle().unwrap();
    let after = rig.disk.counters(&segment(1));
    assert_eq!((after.writes - before.writes, after.syncs - before.syncs), (1, 1));
    let counters = rig.log.counters();
    assert_eq!(
        (counters.blocks, counters.log_syncs, counters.vote_syncs, counters.block_bytes),
        (2, 2, 1, 1024)
    );
}

#[test]
fn a_change_of_commit_alone_costs_nothing() {
    let mut rig = Rig::new();
    rig.put(1, "first");
    rig.log.set_commit(1);
    assert!(rig.log.poll_ticket().is_none());
}

#[test]
fn the_vote_is_synced_before_the_block_is_written() {
    let mut rig = Rig::new();
    rig.make_spares().unwrap();
    rig.log.set_vote(Vote { term: 1, voted_for: 1 });
    rig.log.append(vec![entry(1, 1, "noop")]).unwrap();
    let ticket = rig.log.poll_ticket().unwrap();
    rig.disk.fail_sync(1);
    assert!(ticket.run().is_err());
    assert_eq!(&rig.image(&segment(1))[512..516], [0; 4], "the block was not written");
}

#[test]
fn entries_wait_for_a_spare_and_votes_do_not() {
    let mut rig = Rig::new();
    rig.log.append(vec![entry(1, 1, "waits")]).unwrap();
    assert!(rig.log.poll_ticket().is_none());
    rig.log.set_vote(Vote { term: 1, voted_for: 3 });
    let ticket = rig.log.poll_ticket().unwrap();
    assert!(ticket.has_vote() && ticket.range().is_none());
    rig.log.handle_synced(ticket.run().unwrap());
    assert_eq!((rig.log.generation(), rig.log.durable_generation()), (2, 0), "the entries came first");
    rig.settle().unwrap();
    assert_eq!(rig.log.durable_generation(), 2);
}

#[test]
fn spares_are_ordered_one_after_another_until_there_are_enough() {
    let mut rig = Rig::new();
    let order = rig.log.poll_spare().unwrap();
    assert!(rig.log.poll_spare().is_none());
    rig.log.handle_spare(order.run().unwrap());
    let order = rig.log.poll_spare().unwrap();
    rig.log.handle_spare(order.run().unwrap());
    assert!(rig.log.poll_spare().is_none());
    rig.put(1, "takes one");
    assert_eq!(rig.segments(), [segment(1), segment(2), segment(3)]);
}

#[test]
fn a_full_disk_is_a_state_that_ends_when_the_spares_are_ready() {
    let mut rig = Rig::new();
    rig.make_spares().unwrap();
    rig.disk.fill(true);
    rig.put_without_spares(1, "the first spare becomes the active segment");
    let try_again = |rig: &mut Rig| {
        let prepared = rig.log.poll_spare().expect("one is missing").run().unwrap();
        rig.log.handle_spare(prepared);
    };
    assert!(!rig.log.is_full(), "nobody has noticed yet");
    try_again(&mut rig);
    assert!(rig.log.is_full());
    rig.put_without_spares(1, "there is a reserve");
    try_again(&mut rig);
    assert!(rig.log.is_full());
    assert_eq!(rig.segments(), [segment(1), segment(2)], "what could not be made left nothing behind");
    rig.disk.fill(false);
    try_again(&mut rig);
    assert!(!rig.log.is_full());
    let mut rig = rig.restart().unwrap();
    assert_eq!(rig.log.last_index(), 2);
    rig.put(1, "and it goes on");
}

#[test]
fn without_any_segment_votes_go_on_and_entries_wait() {
    let mut rig = Rig::new();
    rig.disk.fill(true);
    let prepared = rig.log.poll_spare().unwrap().run().unwrap();
    rig.log.handle_spare(prepared);
    rig.log.append(vec![entry(1, 1, "waits")]).unwrap();
    assert!(rig.log.poll_ticket().is_none());
    rig.log.set_vote(Vote { term: 1, voted_for: 2 });
    let ticket = rig.log.poll_ticket().expect("a vote needs no segment");
    assert!(ticket.has_vote() && ticket.range().is_none());
    rig.log.handle_synced(ticket.run().unwrap());
    assert_eq!(rig.log.durable(), 0);
    rig.disk.fill(false);
    rig.settle().unwrap();
    assert_eq!(rig.log.durable(), 1);
}

#[test]
fn what_was_cut_in_flight_is_hidden_by_the_next_block() {
    let mut rig = Rig::new();
    rig.make_spares().unwrap();
    rig.log.append((1..=3).map(|index| entry(index, 1, "old")).collect()).unwrap();
    let ticket = rig.write_only();
    rig.log.append(vec![entry(2, 2, "new")]).unwrap();
    rig.log.handle_synced(ticket.sync().unwrap());
    assert_eq!((rig.log.durable(), rig.log.last_index()), (1, 2));
    assert_eq!(rig.log.durable_generation(), 0, "what replaced the first entries is not durable yet");
    rig.settle().unwrap();
    assert_eq!((rig.log.durable(), rig.log.durable_generation()), (2, 2));
    assert_eq!(all(&rig.restart().unwrap().log), [entry(1, 1, "old"), entry(2, 2, "new")]);
}

#[test]
fn what_was_never_written_is_replaced_without_a_new_segment() {
    let mut rig = Rig::new();
    rig.put(1, "one");
    rig.log.append(vec![entry(2, 1, "old"), entry(3, 1, "old")]).unwrap();
    rig.log.append(vec![entry(2, 2, "new")]).unwrap();
    rig.settle().unwrap();
    assert_eq!(&rig.image(&segment(2))[512..516], [0; 4]);
    assert_eq!(rig.restart().unwrap().log.term(2), Some(2));
}

#[test]
#[should_panic(expected = "at or below commit")]
fn what_is_committed_cannot_be_cut() {
    let mut rig = Rig::new();
    rig.put(1, "one");
    rig.log.set_commit(1);
    let _panics = rig.log.append(vec![entry(1, 2, "other")]);
}

#[test]
#[should_panic(expected = "contiguous")]
fn a_gap_cannot_be_appended() {
    let _panics = Rig::new().log.append(vec![entry(2, 1, "second")]);
}

#[test]
#[should_panic(expected = "contradicts")]
fn a_vote_cannot_be_changed_within_its_term() {
    let mut rig = Rig::new();
    rig.log.set_vote(Vote { term: 1, voted_for: 1 });
    rig.log.set_vote(Vote { term: 1, voted_for: 2 });
}

#[test]
fn the_same_vote_again_is_nothing_new() {
    let mut rig = Rig::new();
    rig.log.set_vote(Vote { term: 1, voted_for: 1 });
    rig.settle().unwrap();
    let generation = rig.log.generation();
    rig.log.set_vote(Vote { term: 1, voted_for: 1 });
    assert_eq!(rig.log.generation(), generation);
    assert!(rig.log.poll_ticket().is_none());
}

#[test]
fn a_witness_is_written_once_and_only_if_it_proves_something() {
    let mut rig = Rig::new();
    rig.witness();
    assert_eq!(rig.log.counters().blocks, 0, "nothing to prove");
    rig.put(1, "one");
    rig.witness();
    rig.witness();
    assert_eq!(rig.log.counters().blocks, 2);
    rig.put(1, "two");
    assert_eq!(rig.log.counters().blocks, 3);
    let mut rig = rig.restart().unwrap();
    rig.witness();
    assert_eq!(rig.log.counters().blocks, 1, "the last block of the life before");
}

#[test]
fn a_witness_waits_until_nothing_else_is_staged() {
    let mut rig = Rig::new();
    rig.put(1, "one");
    rig.log.request_witness();
    rig.log.append(vec![entry(2, 1, "two")]).unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.log.counters().blocks, 3);
    rig.disk.flip(&segment(1), 2 * 512 + 70, 0);
    rig.refused();
}

#[test]
fn blocks_are_bounded_but_for_a_single_entry() {
    let mut rig = Rig::new();
    let largest = small().entry_data_bytes_max();
    rig.log.append(vec![entry(1, 1, "small"), entry(2, 1, vec![1; largest]), entry(3, 1, "small")]).unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.log.counters().blocks, 3);
    assert_eq!(rig.segments().len(), 5, "three in use, two spare");
    assert_eq!(rig.restart().unwrap().log.entry(2).unwrap().data, vec![1; largest]);
}

#[test]
fn entries_are_handed_out_up_to_a_number_of_bytes_but_at_least_one() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        rig.put(1, vec![0; 72]);
    }
    rig.log.append(vec![entry(5, 1, vec![0; 72])]).unwrap();
    let count = |from, to, bytes| rig.log.entries(from, to, bytes).unwrap().len();
    assert_eq!(count(1, 6, 300), 3);
    assert_eq!(count(1, 6, 0), 1);
    assert_eq!(count(4, 6, 1000), 2, "across the durable watermark");
    assert_eq!(count(3, 3, 1000), 0);
    assert!(rig.log.entries(4, 7, 1000).is_err());
}

#[test]
fn entries_are_found_in_any_order() {
    let settings = Settings { segment_bytes: 64 << 10, block_bytes_max: 20_000, ..small() };
    let mut rig = Rig::on(MemoryDisk::new(), settings).unwrap();
    let mut last = 0;
    for batch in 1..60 {
        let entries: Vec<_> = (1..=batch % 17 + 1).map(|n| entry(last + n, 1, vec![n as u8; 300])).collect();
        last += entries.len() as u64;
        rig.log.append(entries).unwrap();
        rig.settle().unwrap();
    }
    let readers = (1..=last).chain((1..=last).rev()).chain((1..=last).map(|n| n * 7919 % last + 1));
    for index in readers {
        assert_eq!(rig.log.entry(index).unwrap().index, index);
    }
    // Many readers, each at its own place.
    for index in 1..=last / 12 {
        for reader in 0..12 {
            let at = reader * (last / 12) + index;
            assert_eq!(rig.log.entry(at).unwrap().index, at);
        }
    }
}
