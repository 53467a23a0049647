use super::*;
use crate::next_hop::Host;
use crate::system_error::{NetworkTrouble, SystemError};

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn candidate(tls: TlsMode) -> Candidate {
    let remote: SocketAddr = "192.0.2.1:25".parse().unwrap();
    Candidate {
        host: Host::Address(remote.ip()),
        remote,
        tls,
        plain_twin_follows: false,
        plan: crate::tls::TlsPlan::for_tests(),
        policy: std::sync::Arc::default(),
    }
}

/// Lets an attempt fail that took no time.
fn fail(reachability: &mut Reachability, trouble: Trouble, seconds: u64) {
    reachability.record_failure(
        &candidate(TlsMode::StartTls),
        at(seconds),
        trouble,
        Setback::NotConnected(SystemError::new(NetworkTrouble::Refused, "no")),
        at(seconds),
    );
}

#[test]
fn a_trouble_is_remembered_for_longer_each_time_it_occurs_again() {
    let mut reachability = Reachability::new();
    let mut now = 0;
    for span in [60, 120, 240, 480, 900, 900] {
        fail(&mut reachability, Trouble::Refused, now);
        assert!(reachability.is_in_trouble(&candidate(TlsMode::Plain), at(now + span - 1)));
        assert!(!reachability.is_in_trouble(&candidate(TlsMode::Plain), at(now + span)));
        now += span;
    }
    fail(&mut reachability, Trouble::Refused, now + 2000);
    assert!(!reachability.is_in_trouble(&candidate(TlsMode::Plain), at(now + 2060)), "long ago");
}

#[test]
fn a_confused_server_is_treated_with_caution_for_an_hour() {
    let mut reachability = Reachability::new();
    let remote = candidate(TlsMode::Plain).remote;
    reachability.note_no_pipelining(remote, at(0));
    assert!(reachability.no_pipelining(remote, at(3599)) && !reachability.no_pipelining(remote, at(3600)));
    reachability.note_no_pipelining(remote, at(0));
    reachability.clear();
    assert!(!reachability.no_pipelining(remote, at(1)));
}

#[test]
fn several_attempts_at_once_are_one_trouble() {
    let mut reachability = Reachability::new();
    for _ in 0..20 {
        fail(&mut reachability, Trouble::Unreachable, 30);
    }
    assert!(reachability.is_in_trouble(&candidate(TlsMode::Plain), at(329)));
    assert!(!reachability.is_in_trouble(&candidate(TlsMode::Plain), at(330)));
}

#[test]
fn trouble_with_tls_says_nothing_of_plain_text() {
    let mut reachability = Reachability::new();
    fail(&mut reachability, Trouble::TlsStalled, 0);
    assert!(reachability.is_in_trouble(&candidate(TlsMode::StartTls), at(1)));
    assert!(!reachability.is_in_trouble(&candidate(TlsMode::Plain), at(1)));
    let remote = candidate(TlsMode::Plain).remote;
    assert!(!reachability.note_agreement(remote, TlsMode::Plain), "and plain text nothing of TLS");
    assert!(reachability.note_agreement(remote, TlsMode::StartTls));
    assert!(!reachability.is_in_trouble(&candidate(TlsMode::StartTls), at(1)));
}

#[test]
fn a_slow_server_is_put_off_until_it_has_decided_something_and_has_not_failed() {
    let mut reachability = Reachability::new();
    let plain = candidate(TlsMode::Plain);
    reachability.note_slowness(plain.remote, at(10));
    assert!(reachability.is_in_trouble(&plain, at(309)) && !reachability.is_in_trouble(&plain, at(310)));
    assert!(reachability.failure_since(&plain, at(0), at(11)).is_none());
    assert!(!reachability.note_agreement(plain.remote, TlsMode::Plain), "a greeting is no proof");
    assert!(reachability.is_in_trouble(&plain, at(11)) && reachability.note_verdict(plain.remote));
    assert!(!reachability.is_in_trouble(&plain, at(11)));
}

#[test]
fn only_attempts_that_began_later_count_for_others() {
    let mut reachability = Reachability::new();
    let plain = candidate(TlsMode::Plain);
    reachability.record_failure(&plain, at(10), Trouble::Unreachable, Setback::ConnectTimedOut, at(40));
    assert!(reachability.failure_since(&plain, at(10), at(40)).is_some());
    assert!(reachability.failure_since(&plain, at(11), at(40)).is_none());
}
