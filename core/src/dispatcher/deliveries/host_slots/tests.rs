use super::*;
use crate::next_hop;
use crate::policy::Policy;
use std::vec;

fn candidate(number: u8) -> Candidate {
    let remote = SocketAddr::from(([192, 0, 2, number], 25));
    let host = next_hop::Host::Address(remote.ip());
    let policy = Policy { host_concurrency: 2, ..Policy::default() }.into();
    Candidate {
        host,
        remote,
        tls: TlsMode::Plain,
        plain_twin_follows: false,
        policy,
        plan: crate::tls::TlsPlan::for_tests(),
    }
}

fn hop(queue: &mut crate::queue::Queue, number: u8) -> HopId {
    let next_hop = next_hop::NextHop::Literal([192, 0, 2, number].into());
    let key = crate::queue::MessageKey(0);
    let state = crate::queue::QueueState::Ready;
    queue.insert(crate::outbox::MailId(number.into()), Some(&next_hop), key, state)
}

/// Slots of which one host may have two, and all three.
fn slots() -> (HostSlots, [HopId; 3]) {
    let mut queue = crate::queue::Queue::new();
    (HostSlots::new(3, 10), [1, 2, 3].map(|number| hop(&mut queue, number)))
}

fn plain(candidate: &Candidate) -> SlotRequest<'_> {
    SlotRequest { candidate, is_in_trouble: false, is_last_resort: false }
}

fn open(slots: &mut HostSlots, connection: u64, hop: HopId, number: u8) {
    let opened = slots.open(Owner::Destination(hop), plain(&candidate(number)), Instant::default());
    assert_eq!(opened, ConnectionId(connection));
    slots.check();
}

#[test]
fn a_place_at_a_host_goes_to_who_waits_for_it_as_soon_as_there_is_one() {
    let (mut slots, [first, second, third]) = slots();
    open(&mut slots, 0, first, 1);
    open(&mut slots, 2, second, 1);
    assert_eq!(slots.check_host(plain(&candidate(1))), Err(SlotRefusal::Full));
    assert_eq!(slots.check_host(plain(&candidate(2))), Ok(()));
    slots.wait_for_host(candidate(1).remote, third, Prospect::Fresh, SlotRefusal::Full, 2);
    slots.want_more_of_host(candidate(1).remote, first);
    assert_eq!(slots.admit(), (vec![], vec![]));
    slots.close(ConnectionId(2));
    assert!(slots.has_waiters(candidate(1).remote));
    assert_eq!(slots.admit(), (vec![third], vec![]), "who would like more comes later");
    slots.check();
    slots.reconsider(candidate(1).remote);
    slots.close(ConnectionId(0));
    assert_eq!(slots.admit(), (vec![], vec![first]));
    assert!(slots.is_at_rest() && slots.hosts.is_empty());
}

#[test]
fn the_limit_of_all_is_kept_and_last_resorts_have_a_part_of_it() {
    let (mut slots, [first, second, third]) = slots();
    let last = candidate(1);
    let last = SlotRequest { is_last_resort: true, ..plain(&last) };
    slots.open(Owner::Destination(first), last, Instant::default());
    slots.open(Owner::Destination(second), last, Instant::default());
    let other = candidate(2);
    let other = SlotRequest { is_last_resort: true, ..plain(&other) };
    assert_eq!(slots.check_host(other), Err(SlotRefusal::LastResorts), "half of three, rounded up");
    slots.wait(third, Prospect::Fresh);
    assert!(slots.has_slot() && !slots.has_spare_slot());
    open(&mut slots, 4, third, 3);
    assert_eq!(slots.pop_waiting(), None);
    slots.prove_useful(candidate(1).remote);
    assert_eq!((slots.unproven_last_resorts(), slots.check_host(other)), (0, Ok(())));
    slots.check();
    slots.close(ConnectionId(4));
    assert_eq!(slots.pop_waiting(), Some(third));
}

#[test]
fn an_address_in_trouble_is_tried_by_one_at_a_time() {
    let (mut slots, [first, ..]) = slots();
    let candidate = candidate(1);
    let troubled = SlotRequest { is_in_trouble: true, ..plain(&candidate) };
    assert_eq!(slots.check_host(troubled), Ok(()));
    open(&mut slots, 0, first, 1);
    assert_eq!(slots.check_host(troubled), Err(SlotRefusal::OnTrial));
    assert!(slots.establish(ConnectionId(0)).is_some() && slots.establish(ConnectionId(0)).is_none());
    assert_eq!(slots.check_host(troubled), Ok(()));
    slots.check();
}
