use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmail_delivery::address::Domain;
use cmail_delivery::dkim::{Algorithm, KeyId, SignMark, SignedMail, SigningKey, SigningRules};
use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, Row, StoreReply, StoreRequest};
use cmail_delivery::time::UnixTime;

use super::super::database::LargeMessages;
use super::super::envelopes;
use super::super::fixture::{Fixture, open};
use super::super::rows;
use super::*;

fn signing() -> Signing {
    let domain = |text: &str| Domain::parse(text).unwrap();
    let (domain, selector) = (domain("example.org"), domain("s"));
    let key = SigningKey { id: KeyId(1), domain, selector, algorithm: Algorithm::Ed25519Sha256 };
    let rules = SigningRules { keys: vec![key], mail: SignedMail::All };
    Signing { rules: Arc::new(rules), now: UnixTime(1_700_000_000) }
}

/// A message of some chunks.
fn message(chunks: usize) -> Vec<u8> {
    let mut data = b"From: a@example.org\n\n".to_vec();
    data.extend((0..chunks * DATA_CHUNK_OCTETS).map(|at| if at % 77 == 0 { b'\n' } else { b'a' }));
    data
}

/// Returns what is signed of a message that is read at once.
fn expected(data: &[u8]) -> Vec<UnsignedField> {
    let mut draft = signing().draft(SignMark::Wanted, None).unwrap();
    assert!(draft.add(data).is_continue());
    draft.finish().unwrap().fields
}

fn row(id: MailId, data: &[u8]) -> (Row, Fingerprint) {
    let fixture = Fixture::new();
    fixture.mail(None, "b@example.net", data);
    let found = rows::row(&fixture.other, MailId(1), 0, &mut rows::texts()).unwrap().unwrap();
    let row = Row { id, ..found.row };
    let fingerprint = Fingerprint::of(&row, None, Some(&data[..data.len().min(DATA_CHUNK_OCTETS)]));
    (row, fingerprint)
}

struct World {
    fixture: Fixture,
    large: LargeMessages,
    signing: Signing,
}

impl World {
    fn new() -> Self {
        Self { fixture: Fixture::new(), large: LargeMessages::default(), signing: signing() }
    }

    fn mail(&self, data: &[u8]) -> MailId {
        self.fixture.mail(None, "b@example.net", data)
    }

    /// Claims mails together, of which so much may be read. Returns the fields of each, if enough was read, and how much was read.
    fn claim(
        &mut self,
        mails: &[(MailId, &[u8])],
        limit_octets: u64,
    ) -> (Vec<Option<Vec<UnsignedField>>>, u64) {
        let LargeMessages { pool, bodies, .. } = &mut self.large;
        let mut drafter = Drafter::new(&self.fixture.other, pool, bodies, Some(&self.signing));
        drafter.limit_octets = limit_octets;
        let mut found = Vec::new();
        for (id, data) in mails {
            let (row, fingerprint) = row(*id, data);
            let head = Bytes::copy_from_slice(&data[..data.len().min(DATA_CHUNK_OCTETS)]);
            let group = Group { rows: vec![row], data_octets: data.len() as u64, head };
            let claimed = drafter.transaction(group, &vec![(*id, fingerprint)]).unwrap();
            found.push(claimed.ok().map(|claimed| claimed.to_sign.unwrap()));
        }
        (found, drafter.read_octets)
    }

    /// Claims a mail until it is drafted. Returns its fields, and how much each claim has read.
    fn claim_until_drafted(&mut self, id: MailId, data: &[u8], limit: u64) -> (Vec<UnsignedField>, Vec<u64>) {
        let mut parts = Vec::new();
        for _ in 0..100 {
            let (mut found, octets) = self.claim(&[(id, data)], limit);
            parts.push(octets);
            if let Some(fields) = found.remove(0) {
                return (fields, parts);
            }
        }
        panic!("it is never drafted");
    }
}

const CHUNK: u64 = DATA_CHUNK_OCTETS as u64;

#[test]
fn a_message_beyond_the_limit_is_read_in_parts_of_which_each_is_as_long_as_what_it_skips() {
    let (mut world, data) = (World::new(), message(20));
    let id = world.mail(&data);
    let (fields, parts) = world.claim_until_drafted(id, &data, 2 * CHUNK);
    assert_eq!(fields, expected(&data));
    let all = data.len() as u64 - CHUNK;
    assert_eq!(parts, [2 * CHUNK, 3 * CHUNK, 6 * CHUNK, all - 11 * CHUNK]);
    assert!(world.large.bodies.begun.is_empty());
}

#[test]
fn a_body_is_read_once_in_a_version_of_the_database() {
    let (mut world, data) = (World::new(), message(3));
    let id = world.mail(&data);
    world.large.turn_to(1);
    let all = data.len() as u64 - CHUNK;
    for (version, read) in [(1, all), (1, 0), (2, all), (2, 0)] {
        world.large.turn_to(version);
        assert_eq!(world.claim(&[(id, &data)], 100 * CHUNK), (vec![Some(expected(&data))], read));
    }
}

#[test]
fn a_message_that_has_changed_or_has_other_keys_is_read_anew() {
    let (mut world, data) = (World::new(), message(6));
    let id = world.mail(&data);
    assert_eq!(world.claim(&[(id, &data)], CHUNK), (vec![None], CHUNK));
    let mut changed = data.clone();
    changed[30] = b'b';
    world.fixture.execute("UPDATE outbox SET mail_data = CAST(?1 AS TEXT)", [&changed]);
    let (fields, parts) = world.claim_until_drafted(id, &changed, CHUNK);
    assert_eq!((fields, parts.len()), (expected(&changed), 3));
    world.large.turn_to(1);
    world.large.turn_to(2);
    assert_eq!(world.claim(&[(id, &changed)], CHUNK), (vec![None], CHUNK));
    let mut rules = (*world.signing.rules).clone();
    rules.keys[0].id = KeyId(2);
    world.signing.rules = Arc::new(rules);
    let (fields, _) = world.claim_until_drafted(id, &changed, CHUNK);
    assert_eq!(fields[0].key, KeyId(2));
    assert_eq!(fields[0].digest, expected(&changed)[0].digest);
}

#[test]
fn what_comes_behind_much_is_left_and_what_is_small_is_not() {
    let (mut world, data, small) = (World::new(), message(5), message(0));
    let (first, second, third) = (world.mail(&data), world.mail(&data), world.mail(&small));
    let mails = [(first, &*data), (second, &*data), (third, &*small)];
    let (found, octets) = world.claim(&mails, 6 * CHUNK);
    let all = data.len() as u64 - CHUNK;
    assert_eq!(found, [Some(expected(&data)), None, Some(expected(&small))]);
    assert_eq!(octets, all);
    assert!(world.large.bodies.begun.is_empty());
}

#[test]
fn more_large_messages_than_are_kept_come_to_an_end_too() {
    let (mut world, data) = (World::new(), message(6));
    let mails: Vec<MailId> = (0..2 * BEGUN_LIMIT + 3).map(|_| world.mail(&data)).collect();
    let (mut left, mut turns) = (mails, 0);
    while !left.is_empty() {
        turns += 1;
        assert!(turns < 100, "{left:?}");
        left.retain(|id| world.claim(&[(*id, &data)], CHUNK).0[0].is_none());
        assert!(world.large.bodies.begun.len() <= BEGUN_LIMIT);
    }
}

#[test]
fn a_header_section_behind_the_first_chunk_is_read_without_the_body_if_that_is_known() {
    let mut world = World::new();
    let header = format!("From: a@example.org\nX: {}\n\n", "x".repeat(DATA_CHUNK_OCTETS));
    let data = [header.as_bytes(), &message(10)].concat();
    let id = world.mail(&data);
    world.large.turn_to(1);
    let (fields, _) = world.claim_until_drafted(id, &data, 100 * CHUNK);
    assert_eq!(fields, expected(&data));
    assert_eq!(world.claim(&[(id, &data)], 100 * CHUNK), (vec![Some(fields)], CHUNK));
}

#[test]
fn marks_do_not_count_where_ids_are_used_again() {
    for (has_unique_ids, mail, signed) in
        [(true, SignedMail::Marked, 1), (false, SignedMail::Marked, 0), (false, SignedMail::All, 1)]
    {
        let mut fixture = Fixture::new();
        if !has_unique_ids {
            let without = "PRAGMA writable_schema = ON; \
                           UPDATE sqlite_schema SET sql = replace(sql, ' AUTOINCREMENT', '') WHERE name = 'outbox'; \
                           PRAGMA writable_schema = RESET";
            fixture.other.execute_batch(without).unwrap();
            fixture.database = open(&fixture.path, Duration::ZERO).unwrap();
        }
        let id = fixture.mail(None, "b@example.net", &message(0));
        fixture.other.execute_batch(envelopes::CREATE).unwrap();
        fixture.execute("INSERT INTO dispatch_envelope (mail_id, sign) VALUES (?1, 1)", [id.0]);
        let rules = SigningRules { mail, ..(*signing().rules).clone() };
        let signing = Some(Signing { rules: Arc::new(rules), ..signing() });
        let request = StoreRequest::Claim { ids: vec![id], transactions: 1, recipients: 1, signing };
        let StoreReply::Claimed(claimed) = fixture.answer(request) else { panic!("it is another answer") };
        assert_eq!(claimed.transactions[0].to_sign.as_ref().map(Vec::len), Ok(signed), "{mail:?}");
    }
}

#[test]
fn who_asks_is_told_the_author_or_why_there_is_no_signature() {
    let fixture = Fixture::new();
    let (good, none) = (message(2), b"Subject: x\n\n".to_vec());
    let long = [b"From: a@example.org\nX: ", &b"x".repeat(HEADER_LIMIT_OCTETS)[..]].concat();
    for (number, (data, told)) in [
        (good, Ok(Domain::parse("example.org").unwrap())),
        (none, Err(Unsigned::NoAuthor)),
        (long, Err(Unsigned::LongHeader)),
    ]
    .into_iter()
    .enumerate()
    {
        let id = fixture.mail(None, "b@example.net", &data);
        assert_eq!(id.0, number as i64 + 1);
        let found = rows::row(&fixture.other, id, 0, &mut rows::texts()).unwrap().unwrap();
        let reader = Reader::open(&fixture.path).unwrap();
        assert_eq!(reader.author_to_sign(&found.row, &signing()).unwrap(), Some(told));
        let marked = SigningRules { mail: SignedMail::Marked, ..(*signing().rules).clone() };
        let marked = Signing { rules: Arc::new(marked), ..signing() };
        assert_eq!(reader.author_to_sign(&found.row, &marked).unwrap(), None);
    }
}
