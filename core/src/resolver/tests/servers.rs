//! Which server is asked when, and how.

use alloc::vec;

use hickory_proto::op::Edns;

use super::*;
use crate::system_error::{MachineTrouble, NetworkTrouble, SystemError};

fn remote(text: &str) -> ConnectError {
    ConnectError::remote(NetworkTrouble::Refused, text)
}

#[test]
fn questions_ask_for_recursion_and_offer_edns() {
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    let message = sent.message();
    assert_eq!((message.message_type, message.queries.len()), (MessageType::Query, 1));
    assert!(message.metadata.recursion_desired);
    assert_eq!(message.queries[0].name(), &name("example.org."));
    assert_eq!(message.queries[0].query_type(), RecordType::MX);
    assert_eq!(message.edns.as_ref().map(Edns::max_payload), Some(1232));
    assert_eq!(sent.to, server(1));
}

#[test]
fn every_server_is_asked_once_and_then_again() {
    // resolv.conf(5), options timeout and attempts.
    let mut scene = Scene::with_servers(2, 2);
    scene.mx("example.org");
    let (mut asked, mut ids, mut queries) = (vec![], vec![], vec![]);
    for _ in 0..4 {
        let sent = scene.one_sent();
        asked.push(sent.to);
        ids.push(sent.message().metadata.id);
        queries.push(sent.query);
        assert_eq!(scene.resolver.poll_timeout(), Some(scene.now + TIMEOUT));
        scene.pass(TIMEOUT - Duration::from_micros(1));
        assert_eq!(scene.outputs(), []);
        scene.pass(Duration::from_micros(1));
    }
    assert_eq!(asked, [server(1), server(2), server(1), server(2)]);
    ids.dedup();
    queries.dedup();
    assert_eq!((ids.len(), queries.len()), (4, 4));
    let text = temporary(scene.answer());
    for part in ["MX records of example.org", "192.0.2.2:53", "did not answer in time"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_is_asked_again_is_asked_without_edns() {
    // RFC 6891 section 6.2.2: something on the way may drop what it does not know, without a word.
    let mut scene = Scene::with_servers(2, 2);
    scene.mx("example.org");
    let offers_edns = core::iter::repeat_with(|| {
        let offers = scene.one_sent().message().edns.is_some();
        scene.pass(TIMEOUT);
        offers
    });
    assert_eq!(offers_edns.take(4).collect::<Vec<_>>(), [true, true, false, false]);
}

#[test]
fn the_socket_of_an_unanswered_query_is_closed() {
    let mut scene = Scene::with_servers(1, 2);
    scene.mx("example.org");
    let first = scene.one_sent();
    scene.pass(TIMEOUT);
    let outputs = scene.outputs();
    assert_eq!(outputs[0], ResolverOutput::CloseDatagram(first.query));
    assert!(matches!(outputs[1], ResolverOutput::Datagram { .. }));
    assert_eq!(outputs.len(), 2);
    scene.reply_with(&first, vec![]);
    assert_eq!(scene.outputs(), [], "a late answer has no socket any more");
}

#[test]
fn a_server_that_fails_is_followed_by_the_next() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::YXDomain, ResponseCode::NotAuth]
    {
        let mut scene = Scene::with_servers(2, 1);
        scene.mx("example.org");
        let first = scene.one_sent();
        scene.reply_with_code(&first, code);
        let second = scene.one_sent();
        assert_eq!(second.to, server(2));
        scene.reply_with_code(&second, ResponseCode::ServFail);
        let text = temporary(scene.answer());
        assert!(text.contains("192.0.2.2:53 answered SERVFAIL"), "{text}");
    }
}

#[test]
fn what_a_server_did_instead_of_answering_is_a_value() {
    type Fail = fn(&mut Scene, &Sent);
    let failed: [(Fail, DnsServerTrouble); 5] = [
        (|scene, _| scene.pass(TIMEOUT), DnsServerTrouble::TimedOut),
        (
            |scene, sent| scene.reply_with_code(sent, ResponseCode::ServFail),
            DnsServerTrouble::Answered(super::super::ResponseCode::ServFail),
        ),
        (
            |scene, sent| scene.reply_with_code(sent, ResponseCode::NotAuth),
            DnsServerTrouble::Answered(super::super::ResponseCode::Other(9)),
        ),
        (
            |scene, sent| scene.resolver.handle_datagram_failed(scene.now, sent.query, remote("refused")),
            DnsServerTrouble::Unreachable(SystemError::new(NetworkTrouble::Refused, "refused")),
        ),
        (
            |scene, sent| {
                let (connection, _) = scene.over_tcp(sent);
                scene.resolver.handle_closed(scene.now, connection, CloseReason::EndOfFile);
            },
            DnsServerTrouble::Closed,
        ),
    ];
    for (fail, expected) in failed {
        let mut scene = Scene::with_servers(1, 1);
        scene.mx("example.org");
        let answer = loop {
            let (mut sent, mut answer) = (None, None);
            for output in scene.outputs() {
                if let ResolverOutput::Answer(_, found) = output {
                    answer = Some(found);
                } else if let ResolverOutput::Datagram { query, to, octets } = output {
                    sent = Some(Sent { query, to, octets });
                }
            }
            match (answer, sent) {
                (Some(answer), _) => break answer,
                (None, Some(sent)) => fail(&mut scene, &sent),
                (None, None) => scene.pass(TIMEOUT),
            }
        };
        let question = DnsQuestion { kind: QuestionType::Mx, name: "example.org".into() };
        let failure = DnsFailure::Server { question, server: server(1), trouble: expected };
        assert_eq!(answer, Answer::Mx(Err(LookupError::Temporary(failure))));
    }
}

#[test]
fn a_malformed_answer_is_followed_by_the_next_server() {
    let mut scene = Scene::with_servers(2, 1);
    scene.mx("example.org");
    let first = scene.one_sent();
    let mut response = first.response();
    response.answers = vec![mx_record("example.org.", 1, "mx.example.")];
    response.edns = None;
    let mut octets = response.to_vec().unwrap();
    octets.pop();
    scene.resolver.handle_datagram(scene.now, first.query, first.to, &octets);
    let second = scene.one_sent();
    assert_eq!(second.to, server(2));
    scene.resolver.handle_datagram(scene.now, second.query, second.to, &{
        let mut response = second.response();
        response.answers = vec![mx_record("example.org.", 1, "mx.example.")];
        response.edns = None;
        let mut octets = response.to_vec().unwrap();
        let (length, target) = (octets.len(), u8::try_from(octets.len() - 12).unwrap());
        // The host becomes a pointer to itself.
        octets[length - 12] = 0xc0;
        octets[length - 11] = target;
        octets
    });
    assert!(temporary(scene.answer()).contains("malformed"));
}

#[test]
fn a_referral_is_no_denial() {
    // RFC 2308 section 2.2.
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    let mut response = sent.response();
    response.authorities = vec![ns_record("org.")];
    scene.reply(&sent, &response);
    assert!(temporary(scene.answer()).contains("refers to other servers"));
}

#[test]
fn answers_to_another_question_are_no_denial() {
    let text = temporary(Scene::mx_of(vec![mx_record("example.net.", 1, "mx.example.")]));
    assert!(text.contains("another question"), "{text}");
    temporary(Scene::mx_of(vec![a_record("example.org.", 1)]));
}

#[test]
fn an_unreachable_server_is_followed_by_the_next_at_once_and_without_end_of_attempts() {
    let mut scene = Scene::with_servers(2, 3);
    scene.mx("example.org");
    let mut asked = vec![];
    for _ in 0..6 {
        let sent = scene.one_sent();
        asked.push(sent.to);
        scene.resolver.handle_datagram_failed(scene.now, sent.query, remote("connection refused"));
    }
    assert_eq!(asked.len(), 6);
    assert!(temporary(scene.answer()).contains("could not be reached: connection refused"));
}

#[test]
fn a_failure_of_this_machine_is_no_failure_of_the_domain() {
    let mut scene = Scene::with_servers(1, 5);
    scene.mx("example.org");
    let sent = scene.one_sent();
    scene.resolver.handle_datagram_failed(
        scene.now,
        sent.query,
        ConnectError::local(MachineTrouble::Descriptors, "too many files"),
    );
    let Answer::Mx(Err(LookupError::Local(error))) = scene.answer() else { panic!() };
    let LocalLookupError::NotAsked { error: SystemError { kind: MachineTrouble::Descriptors, .. }, .. } =
        error
    else {
        panic!("{error:?}")
    };
    let text = error.to_string();
    assert!(text.contains("192.0.2.1:53 could not be asked: too many files"), "{text}");
    scene.mx("example.org");
    assert_eq!(scene.sent().len(), 1, "and it is not remembered");
}

#[test]
fn a_server_that_this_machine_cannot_ask_is_skipped() {
    let mut scene = Scene::with_servers(2, 2);
    scene.mx("example.org");
    let sent = scene.one_sent();
    scene.resolver.handle_datagram_failed(
        scene.now,
        sent.query,
        ConnectError::local(MachineTrouble::Descriptors, "no IPv6"),
    );
    for _ in 0..2 {
        assert_eq!(scene.one_sent().to, server(2));
        scene.pass(TIMEOUT);
    }
    assert!(temporary(scene.answer()).contains("192.0.2.2:53"));
}

#[test]
fn without_a_server_a_lookup_fails_at_once() {
    let mut scene = Scene::with_servers(0, 2);
    scene.mx("example.org");
    assert!(temporary(scene.answer()).contains("no name server is configured"));
    scene.addresses("mx.example", BOTH);
    assert!(temporary(scene.answer()).contains("no name server is configured"));
}

#[test]
fn a_server_that_does_not_know_edns_is_asked_without() {
    // RFC 6891 section 7.
    for (code, repeats_question) in [(1, true), (1, false), (4, true), (16, true)] {
        let mut scene = Scene::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        let mut response = sent.response();
        response.metadata.response_code =
            ResponseCode::from(u8::try_from(code >> 4).unwrap(), code as u8 & 15);
        if !repeats_question {
            response.queries.clear();
            response.edns = None;
        }
        scene.reply(&sent, &response);
        let again = scene.one_sent();
        assert_eq!((again.to, again.message().edns), (sent.to, None));
        scene.reply_with_code(&again, ResponseCode::FormErr);
        assert!(temporary(scene.answer()).contains("FORMERR"));
    }
}

#[test]
fn the_next_server_is_offered_edns_again() {
    let mut scene = Scene::with_servers(2, 1);
    scene.mx("example.org");
    for to in [server(1), server(2)] {
        for has_edns in [true, false] {
            let sent = scene.one_sent();
            assert_eq!((sent.to, sent.message().edns.is_some()), (to, has_edns));
            scene.reply_with_code(&sent, ResponseCode::FormErr);
        }
    }
    temporary(scene.answer());
}

#[test]
fn a_truncated_answer_is_asked_for_by_tcp() {
    // RFC 2181 section 9 and RFC 7766 section 5: what is in it is not used, even if there is something.
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    let mut response = sent.response();
    response.metadata.truncation = true;
    response.answers = vec![mx_record("example.org.", 1, "wrong.example.")];
    scene.reply(&sent, &response);
    let (connection, to) = scene.connect();
    assert_eq!(to, sent.to);
    assert!(scene.resolver.owns_connection(connection));
    let question = scene.question_on(connection);
    let mut response = response_to(&question);
    response.answers = (0..500).map(|n| mx_record("example.org.", n, "mx.example.")).collect();
    let stream = framed(&response.to_vec().unwrap());
    scene.resolver.handle_received(scene.now, connection, &stream);
    let outputs = scene.outputs();
    assert_eq!(outputs[0], ResolverOutput::Close(connection));
    let ResolverOutput::Answer(_, Answer::Mx(Ok(Resolved { value: MxAnswer::Records(hosts), .. }))) =
        &outputs[1]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(hosts.len(), 64);
    scene.assert_clean();
}

#[test]
fn a_tcp_answer_may_come_octet_by_octet() {
    let run = |chunk: usize| {
        let mut scene = Scene::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        let (connection, question) = scene.over_tcp(&sent);
        let mut stranger = response_to(&question);
        stranger.metadata.id ^= 1;
        let mut response = response_to(&question);
        response.answers = vec![mx_record("example.org.", 1, "mx.example.")];
        let mut stream = framed(&stranger.to_vec().unwrap());
        stream.extend(framed(&[]));
        stream.extend(framed(&response.to_vec().unwrap()));
        for octets in stream.chunks(chunk) {
            assert_eq!(scene.outputs(), []);
            scene.resolver.handle_received(scene.now, connection, octets);
        }
        scene.outputs()
    };
    let at_once = run(usize::MAX);
    assert!(matches!(at_once.last(), Some(ResolverOutput::Answer(_, Answer::Mx(Ok(_))))));
    assert_eq!(run(1), at_once);
    assert_eq!(run(3), at_once);
}

#[test]
fn a_failure_of_tcp_is_followed_by_the_next_server() {
    let failures: [fn(&mut Scene, ConnectionId); 5] = [
        |scene, id| scene.resolver.handle_closed(scene.now, id, CloseReason::EndOfFile),
        |scene, id| {
            scene.resolver.handle_closed(
                scene.now,
                id,
                CloseReason::Broken(SystemError::new(NetworkTrouble::Reset, "reset")),
            )
        },
        |scene, id| scene.resolver.handle_connect_failed(scene.now, id, remote("refused")),
        |scene, id| {
            scene.resolver.handle_connect_failed(
                scene.now,
                id,
                ConnectError::local(MachineTrouble::Descriptors, "full"),
            )
        },
        |scene, _| scene.pass(TIMEOUT),
    ];
    for (position, failure) in failures.into_iter().enumerate() {
        let mut scene = Scene::with_servers(2, 1);
        scene.mx("example.org");
        let sent = scene.one_sent();
        let (connection, _) = scene.over_tcp(&sent);
        failure(&mut scene, connection);
        let outputs = scene.outputs();
        let closes = outputs.contains(&ResolverOutput::Close(connection));
        assert_eq!(closes, position == 4, "only what is still open is closed");
        assert!(matches!(outputs.last(), Some(ResolverOutput::Datagram { to, .. }) if *to == server(2)));
    }
}

#[test]
fn a_truncated_answer_over_tcp_is_malformed() {
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    let (connection, question) = scene.over_tcp(&sent);
    let mut response = response_to(&question);
    response.metadata.truncation = true;
    let stream = framed(&response.to_vec().unwrap());
    scene.resolver.handle_received(scene.now, connection, &stream);
    assert!(temporary(scene.answer()).contains("malformed"));
}

fn servers(numbers: &[u8]) -> ResolverSettings {
    ResolverSettings {
        servers: numbers.iter().map(|number| server(*number).into()).collect(),
        timeout: TIMEOUT,
        attempts: 1,
    }
}

#[test]
fn new_servers_are_asked_what_the_old_ones_have_not_answered() {
    let mut scene = Scene::with_servers(2, 1);
    scene.mx("example.org");
    assert_eq!(scene.one_sent().to, server(1));
    scene.pass(TIMEOUT);
    assert_eq!(scene.one_sent().to, server(2));
    scene.resolver.reconfigure(scene.now, servers(&[7]));
    let sent = scene.one_sent();
    assert_eq!(sent.to, server(7));
    scene.reply_with(&sent, vec![mx_record("example.org.", 1, "mx.example.")]);
    assert_eq!(scene.answer(), hosts(&[(1, "mx.example")]));
}

#[test]
fn the_same_servers_are_not_asked_again() {
    let mut scene = Scene::with_servers(2, 1);
    scene.mx("example.org");
    let sent = scene.one_sent();
    scene.resolver.reconfigure(scene.now, servers(&[1, 2]));
    assert_eq!(scene.outputs(), []);
    scene.reply_with(&sent, vec![mx_record("example.org.", 1, "mx.example.")]);
    scene.answer();
}

#[test]
fn new_servers_are_asked_on_behalf_of_a_question_over_tcp() {
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    let (connection, _) = scene.over_tcp(&sent);
    scene.resolver.reconfigure(scene.now, servers(&[7]));
    let outputs = scene.outputs();
    assert!(outputs.contains(&ResolverOutput::Close(connection)), "{outputs:?}");
    assert!(matches!(outputs.last(), Some(ResolverOutput::Datagram { to, .. }) if *to == server(7)));
    scene.pass(TIMEOUT);
    scene.pass(TIMEOUT);
    temporary(scene.answer());
}

#[test]
fn with_one_attempt_a_silent_server_is_asked_without_edns_within_the_same_time() {
    let mut scene = Scene::with_servers(2, 1);
    scene.mx("example.org");
    let began = scene.now;
    let mut asked = vec![];
    for _ in 0..4 {
        let sent = scene.one_sent();
        asked.push((sent.to, sent.message().edns.is_some()));
        scene.pass(TIMEOUT / 2);
    }
    let [first, second] = [server(1), server(2)];
    assert_eq!(asked, [(first, true), (second, true), (first, false), (second, false)]);
    assert!(temporary(scene.answer()).contains("did not answer in time"));
    assert_eq!(scene.now, began + TIMEOUT * 2, "the time of one attempt at each of two servers");
}

#[test]
fn with_one_attempt_a_server_that_has_answered_is_not_asked_again() {
    let mut scene = Scene::with_servers(2, 1);
    scene.mx("example.org");
    let sent = scene.one_sent();
    scene.reply_with_code(&sent, ResponseCode::ServFail);
    assert_eq!(scene.one_sent().to, server(2));
    scene.pass(TIMEOUT / 2);
    let again = scene.one_sent();
    assert_eq!((again.to, again.message().edns), (server(2), None));
    scene.reply_with(&again, vec![mx_record("example.org.", 1, "mx.example.")]);
    assert_eq!(scene.answer(), hosts(&[(1, "mx.example")]));
}
