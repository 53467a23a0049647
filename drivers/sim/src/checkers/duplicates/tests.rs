use cmail_delivery::io::ConnectionId;
use cmail_delivery::memory_outbox::MemoryOutbox;
use cmail_delivery::time::{Instant, Now, UnixTime};

use super::*;
use crate::dice::Dice;
use crate::facts::Parting;
use crate::map::Map;
use crate::options::Options;

const TEXTS: [&[u8]; 3] = [b"1\r\n", b"2\r\n", b"3\r\n"];

fn link(id: u64) -> Link {
    Link { epoch: 1, id: ConnectionId(id) }
}

/// A checker that has seen messages accepted on one connection, each with a reply of these codes but the last, and the end.
fn after_replies(codes: &[u16]) -> Duplicates {
    let mut duplicates = Duplicates::default();
    see(&mut duplicates, Fact::Started { epoch: 1, is_pass: false }).unwrap();
    let codes = codes.iter().copied().map(Some).chain([None]);
    for ((number, text), code) in (1..).zip(TEXTS).zip(codes) {
        accepted(&mut duplicates, 1, number, text).unwrap();
        if let Some(code) = code {
            see(&mut duplicates, Fact::Reply { link: link(1), to: Verb::FinalDot, code, text: b"" }).unwrap();
        }
    }
    see(&mut duplicates, Fact::Gone { link: link(1), parting: Parting::Reset }).unwrap();
    duplicates
}

fn see(duplicates: &mut Duplicates, fact: Fact<'_>) -> Result<(), String> {
    let settings = Options::draw(&mut Dice::new(1), 1).settings();
    let (outbox, map) = (MemoryOutbox::new(), Map::default());
    let now = Now::new(Instant::default(), UnixTime(0));
    duplicates.see(
        &Scene {
            now,
            said_since: now.monotonic,
            settings: &settings,
            earlier_settings: &[],
            outbox: &outbox,
            map: &map,
        },
        fact,
    )
}

fn accepted(duplicates: &mut Duplicates, id: u64, number: u32, data: &[u8]) -> Result<(), String> {
    let recipients = ["a@b.example".to_owned()];
    let keys = MailKey::all(&recipients, data);
    see(duplicates, Fact::Accepted { link: link(id), number, recipients: &recipients, data, keys: &keys })
}

#[test]
fn what_has_no_reply_may_come_again_and_nothing_else() {
    let mut duplicates = after_replies(&[250]);
    assert!(accepted(&mut duplicates, 2, 1, TEXTS[1]).is_ok());
    assert_eq!(duplicates.accounted, 1);
    assert!(accepted(&mut duplicates, 3, 1, TEXTS[0]).is_err());
}

#[test]
fn who_refuses_what_it_has_accepted_gets_it_again() {
    let mut duplicates = after_replies(&[250, 451]);
    assert!(accepted(&mut duplicates, 2, 1, TEXTS[1]).is_ok());
    assert!(accepted(&mut duplicates, 3, 1, TEXTS[2]).is_ok());
    assert_eq!(duplicates.accounted, 2);
    assert!(accepted(&mut duplicates, 4, 1, TEXTS[0]).is_err());
}

#[test]
fn of_each_connection_one_message_is_without_its_reply() {
    let mut duplicates = Duplicates::default();
    see(&mut duplicates, Fact::Started { epoch: 1, is_pass: false }).unwrap();
    accepted(&mut duplicates, 1, 1, TEXTS[0]).unwrap();
    accepted(&mut duplicates, 2, 1, TEXTS[1]).unwrap();
    assert!(accepted(&mut duplicates, 1, 2, TEXTS[2]).is_err());
}

#[test]
fn nothing_is_delivered_while_its_reply_is_awaited() {
    let mut duplicates = Duplicates::default();
    see(&mut duplicates, Fact::Started { epoch: 1, is_pass: false }).unwrap();
    accepted(&mut duplicates, 1, 1, TEXTS[0]).unwrap();
    assert!(accepted(&mut duplicates, 2, 1, TEXTS[0]).is_err());
}
