use super::*;
use RefusalKind::{Closing, ClosingAtEnd, NotNow, OutOfStep};
use proptest::prelude::*;

const FIRST: ConnectionId = ConnectionId(0);
const SECOND: ConnectionId = ConnectionId(2);
const KINDS: [RefusalKind; 4] = [NotNow, OutOfStep, Closing, ClosingAtEnd];

fn with_connection(lead: impl FnOnce(&mut Refusals)) -> Refusals {
    let mut refusals = Refusals::default();
    refusals.open(FIRST);
    lead(&mut refusals);
    refusals
}

#[test]
fn what_follows_hangs_on_what_the_connection_was_good_for() {
    let rulings =
        |lead: fn(&mut Refusals)| KINDS.map(|kind| with_connection(lead).refuse(FIRST, MailId(1), kind));
    let (verdict, leave) = (Ruling::Verdict, Ruling::Leave);
    assert_eq!(rulings(|_| ()), [verdict, verdict, leave, verdict], "nothing");
    assert_eq!(rulings(|refusals| refusals.decide(FIRST)), [verdict, leave, leave, verdict], "refusals");
    assert_eq!(rulings(|refusals| refusals.take(FIRST)), [leave, leave, leave, verdict], "a message");
}

/// Mail 1 is refused by a connection that has taken another, and goes first on a second one.
fn retry() -> Refusals {
    let mut refusals = with_connection(|refusals| refusals.take(FIRST));
    assert_eq!(refusals.refuse(FIRST, MailId(1), NotNow), Ruling::Leave);
    assert_eq!(refusals.put_first([MailId(1)].into()), []);
    assert!(refusals.is_waiting());
    refusals.open(SECOND);
    assert_eq!(refusals.take_first(SECOND), [MailId(1)]);
    assert!(refusals.is_retrying() && !refusals.is_waiting());
    refusals
}

#[test]
fn a_new_connection_that_takes_the_mail_shows_that_it_was_the_connection() {
    let mut refusals = retry();
    refusals.take(SECOND);
    assert!(!refusals.is_retrying());
    assert_eq!(refusals.refuse(SECOND, MailId(2), NotNow), Ruling::Leave);
}

#[test]
fn a_new_connection_that_refuses_the_mail_and_takes_another_shows_that_it_was_the_mail() {
    let mut refusals = retry();
    assert_eq!(refusals.refuse(SECOND, MailId(1), NotNow), Ruling::Verdict);
    refusals.take(SECOND);
    assert_eq!(refusals.refuse(SECOND, MailId(2), NotNow), Ruling::Verdict);
    // What closes the connection or has lost the thread is no word about the mail.
    assert_eq!(refusals.refuse(SECOND, MailId(2), OutOfStep), Ruling::Leave);
}

#[test]
fn what_another_connection_takes_shows_nothing() {
    let mut refusals = retry();
    assert_eq!(refusals.refuse(SECOND, MailId(1), NotNow), Ruling::Verdict);
    refusals.take(FIRST);
    assert_eq!(refusals.refuse(FIRST, MailId(2), NotNow), Ruling::Leave);
}

#[test]
fn only_one_mail_goes_first() {
    let mut refusals = retry();
    refusals.open(FIRST);
    refusals.take(FIRST);
    assert_eq!(refusals.refuse(FIRST, MailId(2), NotNow), Ruling::Leave);
    assert_eq!(refusals.put_first([MailId(2)].into()), [MailId(2)]);
}

#[test]
fn mail_that_a_connection_has_not_begun_goes_first_on_the_next() {
    let mut refusals = retry();
    assert_eq!(refusals.return_first(FIRST, [MailId(7)].into()), [MailId(7)], "it was not for this one");
    assert_eq!(refusals.return_first(SECOND, [MailId(1)].into()), []);
    assert!(refusals.end(SECOND), "it was good for nothing");
    assert!(refusals.is_waiting());
    refusals.open(FIRST);
    assert_eq!(refusals.take_first(FIRST), [MailId(1)]);
}

#[test]
fn three_mails_in_a_row_are_too_many_and_the_same_one_is_one() {
    let mut refusals = retry();
    for (mail, are_too_many) in [(1, false), (1, false), (2, false), (3, true)] {
        assert_eq!(refusals.refuse(SECOND, MailId(mail), NotNow), Ruling::Verdict);
        assert_eq!(refusals.are_too_many(), are_too_many, "mail {mail}");
    }
    refusals.take(SECOND);
    assert!(refusals.are_too_many(), "that stays so for the pass");
}

#[test]
fn a_connection_that_came_to_nothing_counts_once() {
    let mut refusals = retry();
    // By 421, before it has decided anything.
    assert_eq!(refusals.refuse(SECOND, MailId(1), Closing), Ruling::Leave);
    assert!(refusals.end(SECOND));
    refusals.lose();
    assert!(!refusals.are_too_many(), "the mail, and a connection");
    refusals.lose();
    assert!(refusals.are_too_many());
}

#[test]
fn what_is_taken_between_ends_the_row() {
    let mut refusals = with_connection(|_| ());
    for mail in 1..10 {
        refusals.refuse(FIRST, MailId(mail), NotNow);
        if mail % 2 == 0 {
            refusals.take(FIRST);
        }
    }
    assert!(!refusals.are_too_many());
}

#[test]
fn another_pass_knows_only_what_its_connections_were_good_for() {
    let mut refusals = retry();
    refusals.take_back();
    refusals.begin_pass();
    assert!(!refusals.has_taken() && !refusals.is_retrying() && !refusals.are_too_many());
    assert_eq!(refusals.refuse(FIRST, MailId(1), NotNow), Ruling::Leave);
}

proptest! {
    /// Whatever happens, what goes first comes back once.
    #[test]
    fn no_mail_is_forgotten(steps in prop::collection::vec((0..7_u8, 0..3_u64, 0..4_usize), 0..60)) {
        let mut refusals = Refusals::default();
        let (mut held, mut mail) = (Vec::new(), 0);
        let give_back = |held: &mut Vec<MailId>, ids: Vec<MailId>| {
            held.retain(|id| !ids.contains(id));
        };
        for (step, connection, kind) in steps {
            let connection = ConnectionId(connection * 2);
            match step {
                0 => refusals.open(connection),
                1 => refusals.take(connection),
                2 => refusals.decide(connection),
                3 => {
                    mail += 1;
                    if refusals.refuse(connection, MailId(mail), KINDS[kind]) == Ruling::Leave {
                        held.push(MailId(mail));
                        let back = refusals.put_first([MailId(mail)].into());
                        give_back(&mut held, back);
                    }
                }
                4 => {
                    let ids = refusals.take_first(connection);
                    give_back(&mut held, ids);
                }
                5 => {
                    refusals.end(connection);
                }
                _ => {
                    let ids = refusals.take_back();
                    give_back(&mut held, ids);
                }
            }
        }
        let ids = refusals.take_back();
        give_back(&mut held, ids);
        prop_assert_eq!(held, []);
    }
}
