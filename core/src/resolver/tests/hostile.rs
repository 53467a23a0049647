//! What others send who want to be believed, or to do harm.

use alloc::vec;

use hickory_proto::op::OpCode;
use hickory_proto::rr::DNSClass;
use proptest::prelude::*;

use super::*;
use crate::resolver::message::RECORDS_LIMIT;
use crate::resolver::query::{STRAY_DATAGRAMS_LIMIT, STRAY_MESSAGES_LIMIT};
use crate::system_error::{MachineTrouble, NetworkTrouble};

/// The right answer to a query, to be spoiled.
fn right_answer(sent: &Sent) -> WireMessage {
    let mut response = sent.response();
    response.answers = vec![mx_record("example.org.", 1, "mx.example.")];
    response
}

#[test]
fn what_is_no_reply_to_the_question_is_ignored() {
    // RFC 5452 section 9.1.
    let spoils: [fn(&mut WireMessage); 9] = [
        |message| message.metadata.id ^= 1,
        |message| message.metadata.message_type = MessageType::Query,
        |message| message.metadata.op_code = OpCode::Status,
        |message| message.queries.clear(),
        |message| message.queries.push(message.queries[0].clone()),
        |message| {
            message.queries[0].set_name(name("example.net."));
        },
        |message| {
            message.queries[0].set_query_type(RecordType::A);
        },
        |message| {
            message.queries[0].set_query_class(DNSClass::CH);
        },
        |message| {
            message.queries.clear();
            message.metadata.response_code = ResponseCode::ServFail;
        },
    ];
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    for spoil in spoils {
        let mut response = right_answer(&sent);
        spoil(&mut response);
        scene.reply(&sent, &response);
        assert_eq!(scene.outputs(), [], "{response:?}");
    }
    let octets = right_answer(&sent).to_vec().unwrap();
    for from in [server(2), SocketAddr::new(sent.to.ip(), 54)] {
        scene.resolver.handle_datagram(scene.now, sent.query, from, &octets);
        assert_eq!(scene.outputs(), []);
    }
    scene.resolver.handle_datagram(scene.now, QueryId(sent.query.0 + 1), sent.to, &octets);
    assert_eq!(scene.outputs(), []);
    assert_eq!(scene.resolver.poll_timeout(), Some(scene.now + TIMEOUT / 2));
    let mut response = right_answer(&sent);
    response.queries[0].set_name(name("EXAMPLE.Org."));
    scene.reply(&sent, &response);
    assert_eq!(scene.answer(), hosts(&[(1, "mx.example")]));
}

#[test]
fn a_question_under_attack_goes_on_over_tcp() {
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    let mut forged = right_answer(&sent);
    forged.metadata.id ^= 1;
    for _ in 1..STRAY_DATAGRAMS_LIMIT {
        scene.reply(&sent, &forged);
        assert_eq!(scene.outputs(), []);
    }
    scene.reply(&sent, &forged);
    let (connection, to) = scene.connect();
    assert_eq!(to, sent.to);
    let mut response = response_to(&scene.question_on(connection));
    response.answers = vec![mx_record("example.org.", 1, "mx.example.")];
    let stream = framed(&response.to_vec().unwrap());
    scene.resolver.handle_received(scene.now, connection, &stream);
    assert_eq!(scene.answer(), hosts(&[(1, "mx.example")]));
}

#[test]
fn a_server_that_sends_strange_messages_without_end_is_given_up() {
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    let (connection, _) = scene.over_tcp(&sent);
    let stream = framed(b"x").repeat(usize::try_from(STRAY_MESSAGES_LIMIT).unwrap());
    scene.resolver.handle_received(scene.now, connection, &stream[..stream.len() - 1]);
    assert_eq!(scene.outputs(), []);
    scene.resolver.handle_received(scene.now, connection, &stream[stream.len() - 1..]);
    temporary(scene.answer());
}

/// The octets of a right answer with `answers` in their raw form.
pub(super) fn raw_answer(sent: &Sent, count: u16, answers: &[u8]) -> Vec<u8> {
    let mut response = sent.response();
    response.edns = None;
    let mut octets = response.to_vec().unwrap();
    octets[6..8].copy_from_slice(&count.to_be_bytes());
    octets.extend(answers);
    octets
}

#[test]
fn names_of_many_pointers_are_malformed() {
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    let head = raw_answer(&sent, 2, &[]).len();
    // A record whose data is a staircase of pointers, and one whose name is its last step.
    let mut answers = vec![0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 80];
    let mut step = 12;
    for position in (head + 11..).step_by(2).take(40) {
        answers.extend((0xc000 | u16::try_from(step).unwrap()).to_be_bytes());
        step = position;
    }
    answers.extend((0xc000 | u16::try_from(step).unwrap()).to_be_bytes());
    answers.extend([0, 15, 0, 1, 0, 0, 0, 9, 0, 3, 0, 1, 0]);
    let octets = raw_answer(&sent, 2, &answers);
    scene.resolver.handle_datagram(scene.now, sent.query, sent.to, &octets);
    assert!(temporary(scene.answer()).contains("malformed"));
}

#[test]
fn pointers_that_lead_nowhere_are_malformed() {
    let record =
        |pointer: u16| [&pointer.to_be_bytes()[..], &[0, 15, 0, 1, 0, 0, 0, 9, 0, 3, 0, 1, 0]].concat();
    for offset in [0x1d_u16, 0x1e, 0x3fff] {
        let mut scene = Scene::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        let octets = raw_answer(&sent, 1, &record(0xc000 | offset));
        scene.resolver.handle_datagram(scene.now, sent.query, sent.to, &octets);
        assert!(temporary(scene.answer()).contains("malformed"));
    }
}

#[test]
fn data_that_does_not_fill_its_record_is_malformed() {
    for (length, data) in [(4_u8, &[0, 1, 0, 0][..]), (2, &[0, 1]), (200, &[0, 1, 0])] {
        let mut scene = Scene::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        let octets =
            raw_answer(&sent, 1, &[&[0xc0, 12, 0, 15, 0, 1, 0, 0, 0, 9, 0, length][..], data].concat());
        scene.resolver.handle_datagram(scene.now, sent.query, sent.to, &octets);
        assert!(temporary(scene.answer()).contains("malformed"));
    }
}

#[test]
fn records_beyond_the_limit_are_not_looked_at() {
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    let count = u16::try_from(RECORDS_LIMIT).unwrap() + 1;
    let mut answers = [0xc0, 12, 0, 15, 0, 1, 0, 0, 0, 9, 0, 5, 0, 1, 1, b'a', 0].repeat(RECORDS_LIMIT);
    answers.extend([0xff; 20]);
    let octets = raw_answer(&sent, count, &answers);
    scene.resolver.handle_datagram(scene.now, sent.query, sent.to, &octets);
    let Answer::Mx(Ok(Resolved { value: MxAnswer::Records(kept), .. })) = scene.answer() else { panic!() };
    assert_eq!(kept.len(), 64);
}

#[test]
fn calls_about_unknown_things_do_nothing() {
    let mut scene = Scene::new();
    let now = scene.now;
    for id in [0, 1, 2, 99] {
        let (query, connection) = (QueryId(id), ConnectionId(id));
        scene.resolver.handle_datagram(now, query, server(1), b"");
        scene.resolver.handle_datagram_failed(
            now,
            query,
            ConnectError::local(MachineTrouble::Descriptors, "x"),
        );
        scene.resolver.handle_connected(now, connection);
        scene.resolver.handle_connect_failed(
            now,
            connection,
            ConnectError::remote(NetworkTrouble::Refused, "x"),
        );
        scene.resolver.handle_received(now, connection, b"x");
        scene.resolver.handle_closed(now, connection, CloseReason::EndOfFile);
        scene.resolver.cancel(LookupId(id));
        assert!(!scene.resolver.poll_transmit(connection, 100, &mut BytesMut::new()));
    }
    scene.resolver.handle_timeout(now);
    assert_eq!(scene.outputs(), []);
    scene.assert_clean();
}

proptest! {
    #[test]
    fn arbitrary_datagrams_are_never_an_answer(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut scene = Scene::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        // Not by chance the right id.
        prop_assume!(!octets.starts_with(&sent.octets[..2]));
        scene.resolver.handle_datagram(scene.now, sent.query, sent.to, &octets);
        prop_assert_eq!(scene.outputs(), []);
    }

    #[test]
    fn arbitrary_streams_are_never_an_answer(octets in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut scene = Scene::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        let (connection, question) = scene.over_tcp(&sent);
        let id = question.metadata.id.to_be_bytes();
        prop_assume!(!octets.windows(2).any(|pair| pair == id));
        scene.resolver.handle_received(scene.now, connection, &octets);
        for output in scene.outputs() {
            let is_success = matches!(output, ResolverOutput::Answer(_, Answer::Mx(Ok(_)) | Answer::Addresses(_)));
            prop_assert!(!is_success);
        }
    }

    #[test]
    fn arbitrary_records_never_panic(octets in prop::collection::vec(any::<u8>(), 0..300), counts in any::<[u8; 3]>()) {
        let mut scene = Scene::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        let mut answer = raw_answer(&sent, counts[0].into(), &octets);
        answer[9] = counts[1] & 3;
        answer[11] = counts[2] & 3;
        scene.resolver.handle_datagram(scene.now, sent.query, sent.to, &answer);
        scene.pass(TIMEOUT);
        scene.pass(TIMEOUT);
        scene.outputs();
    }

    #[test]
    fn damaged_answers_never_panic(position in 2..200_usize, octet in any::<u8>(), cut in 12..220_usize) {
        let mut scene = Scene::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        let mut response = right_answer(&sent);
        response.answers.push(alias("example.org.", "b.example."));
        response.authorities = vec![soa_record("org.", 30, 60), ns_record("org.")];
        let mut octets = response.to_vec().unwrap();
        octets.truncate(cut);
        if let Some(damaged) = octets.get_mut(position) {
            *damaged = octet;
        }
        scene.resolver.handle_datagram(scene.now, sent.query, sent.to, &octets);
        scene.outputs();
    }

    #[test]
    fn a_stream_means_the_same_however_it_is_cut(cuts in prop::collection::vec(1..40_usize, 1..20), damage in any::<(u8, u8)>()) {
        let run = |chunks: &[usize]| {
            let mut scene = Scene::new();
            scene.mx("example.org");
            let sent = scene.one_sent();
            let (connection, question) = scene.over_tcp(&sent);
            let mut response = response_to(&question);
            response.answers = vec![mx_record("example.org.", 1, "mx.example.")];
            let mut stream = framed(&response.to_vec().unwrap());
            let position = usize::from(damage.0) % stream.len();
            stream[position] ^= damage.1;
            let mut rest = stream.as_slice();
            for chunk in chunks.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (octets, after) = rest.split_at((*chunk).min(rest.len()));
                scene.resolver.handle_received(scene.now, connection, octets);
                rest = after;
            }
            scene.outputs()
        };
        prop_assert_eq!(run(&cuts), run(&[usize::MAX]));
    }
}
