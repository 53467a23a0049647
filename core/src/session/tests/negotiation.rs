//! Greeting, EHLO, STARTTLS, padding, QUIT.

use super::*;
use crate::system_error::{SystemError, TlsTrouble};

fn starttls() -> SessionConfig {
    config(TlsMode::StartTls)
}

#[test]
fn nothing_is_said_before_the_greeting() {
    // RFC 5321 section 3.1
    dialogue(&plain(), |talk| {
        talk.client("").server("220-mx.example.net\r\n220 ready\r\n").client("EHLO client.example.org\r\n");
        assert_eq!(talk.server("250 mx\r\n").outputs(), [SessionOutput::Ready]);
        assert_eq!((talk.session.phase(), talk.session.poll_timeout()), (Phase::Ready, None));
    });
}

#[test]
fn a_refused_greeting_is_answered_by_quit() {
    // RFC 5321 section 3.1
    for greeting in ["554 no mail here", "450 later", "150 what"] {
        dialogue(&plain(), |talk| {
            talk.server(&alloc::format!("{greeting}\r\n")).client("QUIT\r\n");
            assert_eq!((talk.outputs(), talk.session.phase()), (Vec::new(), Phase::Quit));
            let end = talk.server("221 bye\r\n").end();
            assert_eq!(end.phase, Phase::Greeting);
            assert_eq!(reply_text(&end.cause), alloc::format!("{greeting} greeting"));
        });
    }
}

#[test]
fn a_3yz_that_cannot_be_a_reply_ends_the_session_at_once() {
    dialogue(&plain(), |talk| {
        let end = talk.server("354 what\r\n").client("").end();
        assert_eq!(out_of_step(&end), "the server cannot answer greeting by this: 354 what");
    });
    dialogue(&plain(), |talk| {
        let end =
            talk.server("220 mx\r\n").client("EHLO client.example.org\r\n").server("334 what\r\n").end();
        assert_eq!(out_of_step(&end), "the server cannot answer EHLO by this: 334 what");
    });
}

#[test]
fn no_quit_follows_a_421() {
    // RFC 5321 section 3.8
    dialogue(&plain(), |talk| {
        let end = talk.server("421 4.3.2 busy\r\n").client("").end();
        assert_eq!((end.phase, reply_text(&end.cause)), (Phase::Greeting, "421 4.3.2 busy greeting".into()));
    });
}

#[test]
fn a_server_without_ehlo_is_greeted_with_helo() {
    // RFC 5321 section 3.2
    dialogue(&plain(), |talk| {
        talk.server("220 mx\r\n").client("EHLO client.example.org\r\n");
        talk.server("502 what\r\n").client("HELO client.example.org\r\n");
        assert_eq!(talk.server("250-mx\r\n250 SIZE 1\r\n").outputs(), [SessionOutput::Ready]);
        talk.begin(mail(1, "x")).client("MAIL FROM:<s@example.org>\r\n");
    });
}

#[test]
fn a_server_that_refuses_helo_too_or_ehlo_for_now_is_left() {
    dialogue(&plain(), |talk| {
        talk.server("220 mx\r\n").client("EHLO client.example.org\r\n").server("550 no\r\n");
        talk.client("HELO client.example.org\r\n").server("550 never\r\n").client("QUIT\r\n").closed();
        assert_eq!(reply_text(&talk.end().cause), "550 never HELO");
    });
    dialogue(&plain(), |talk| {
        talk.server("220 mx\r\n").client("EHLO client.example.org\r\n").server("451 later\r\n");
        talk.client("QUIT\r\n").pass(5);
        let end = talk.end();
        assert_eq!((end.phase, reply_text(&end.cause)), (Phase::Ehlo, "451 later EHLO".into()));
    });
}

#[test]
fn after_tls_ehlo_is_said_again_and_the_first_reply_is_forgotten() {
    // RFC 3207 section 4.2
    dialogue(&starttls(), |talk| {
        talk.server("220 mx\r\n").client("EHLO client.example.org\r\n");
        talk.server("250-mx\r\n250-SIZE 1\r\n250 STARTTLS\r\n").client("STARTTLS\r\n");
        assert_eq!(talk.server("220 go\r\n").outputs(), [SessionOutput::StartTls]);
        assert!(!talk.session.is_tls());
        talk.client("").tls(false).client("EHLO client.example.org\r\n");
        assert_eq!(talk.server("250-mx\r\n250 8BITMIME\r\n").outputs(), [SessionOutput::Ready]);
        assert!(talk.session.is_tls());
        talk.begin(mail(1, "xx")).client("MAIL FROM:<s@example.org>\r\n");
    });
}

#[test]
fn what_was_offered_before_tls_does_not_count_for_a_server_without_ehlo_inside() {
    // RFC 3207 section 4.2
    dialogue(&starttls(), |talk| {
        talk.server("220 mx\r\n").client("EHLO client.example.org\r\n");
        talk.server("250-mx\r\n250-SIZE 1\r\n250 STARTTLS\r\n").client("STARTTLS\r\n").server("220 go\r\n");
        talk.tls(false).client("EHLO client.example.org\r\n").server("502 what\r\n");
        talk.client("HELO client.example.org\r\n").server("250 mx\r\n");
        talk.begin(mail(1, "xx")).client("MAIL FROM:<s@example.org>\r\n");
    });
}

#[test]
fn plain_text_behind_the_reply_to_starttls_ends_the_session() {
    // RFC 3207 section 6
    dialogue(&starttls(), |talk| {
        talk.server("220 mx\r\n").client("EHLO client.example.org\r\n");
        talk.server("250-mx\r\n250 STARTTLS\r\n").client("STARTTLS\r\n");
        let end = talk.server("220 go\r\n250 injected\r\n").tls(true).client("").end();
        assert_eq!(end.phase, Phase::Tls);
        assert_eq!(lost(&end), "the server sent plain text where TLS was to begin");
    });
}

#[test]
fn without_starttls_it_goes_on_in_plain_text_only_if_that_comes_next_anyway() {
    let lead = |talk: &mut Talk| {
        talk.server("220 mx\r\n").client("EHLO client.example.org\r\n").server("250 mx\r\n");
    };
    dialogue(&starttls(), |talk| {
        lead(talk);
        let end = talk.client("QUIT\r\n").server("221 bye\r\n").end();
        assert_eq!(end.cause, EndCause::Unsuitable(Unsuitable::StartTlsNotOffered));
    });
    dialogue(&SessionConfig { plain_fallback: true, ..starttls() }, |talk| {
        lead(talk);
        let note = SessionOutput::Note(SessionNote::StartTlsNotOffered);
        assert_eq!(talk.outputs(), [note, SessionOutput::Ready]);
    });
}

#[test]
fn a_refused_starttls_and_a_failed_handshake_end_the_session_even_with_a_fallback() {
    let config = SessionConfig { plain_fallback: true, ..starttls() };
    let lead = |talk: &mut Talk| {
        talk.server("220 mx\r\n").client("EHLO client.example.org\r\n");
        talk.server("250-mx\r\n250 STARTTLS\r\n").client("STARTTLS\r\n");
    };
    dialogue(&config, |talk| {
        lead(talk);
        let end = talk.server("454 no TLS\r\n").client("QUIT\r\n").server("221 bye\r\n").end();
        assert_eq!((end.phase, reply_text(&end.cause)), (Phase::StartTls, "454 no TLS STARTTLS".into()));
    });
    dialogue(&config, |talk| {
        lead(talk);
        talk.server("220 go\r\n");
        talk.session.handle_tls_failed(talk.now, SystemError::new(TlsTrouble::Alert, "alert"));
        let end = talk.client("").end();
        assert_eq!(
            end.cause,
            EndCause::Unsuitable(Unsuitable::TlsFailed(SystemError::new(TlsTrouble::Alert, "alert")))
        );
        assert_eq!(end.cause.to_string(), "the TLS handshake failed: alert");
    });
}

#[test]
fn implicit_tls_comes_before_the_greeting() {
    // RFC 8314 section 3
    dialogue(&config(TlsMode::Implicit), |talk| {
        assert_eq!(talk.outputs(), [SessionOutput::StartTls]);
        talk.tls(true).client("").server("220 mx\r\n").client("EHLO client.example.org\r\n");
        assert_eq!(talk.server("250-mx\r\n250 STARTTLS\r\n").outputs(), [SessionOutput::Ready]);
    });
}

/// Leads to the padding inside TLS; the seed decides how much there is.
fn padded(seed: u8, limit: u16) -> Talk {
    let config = SessionConfig { padding_limit: limit, ..config(TlsMode::Implicit) };
    let mut talk = Talk::new(config.clone(), 1);
    talk.session = Session::new(config, Rng::from_seed([seed; 32]), talk.now);
    talk.tls(false).server("220 mx\r\n").client("EHLO client.example.org\r\n").server("250 mx\r\n");
    talk
}

#[test]
fn padding_is_a_random_number_of_noop_and_rset() {
    let mut counts = [0; 4];
    let mut commands = [0; 2];
    for seed in 0..100 {
        let mut talk = padded(seed, 3);
        let mut count = 0;
        loop {
            match &*talk.transmit() {
                b"" => break,
                b"NOOP\r\n" => commands[0] += 1,
                b"RSET\r\n" => commands[1] += 1,
                other => panic!("{}", other.escape_ascii()),
            }
            assert_eq!(talk.session.phase(), Phase::Padding);
            count += 1;
            talk.server("250 ok\r\n");
        }
        counts[count] += 1;
        assert_eq!(talk.session.phase(), Phase::Ready);
    }
    assert!(counts.iter().all(|count| *count >= 10), "{counts:?}");
    assert!(commands.iter().all(|count| *count >= 30), "{commands:?}");
}

#[test]
fn there_is_no_padding_without_tls() {
    dialogue(&SessionConfig { padding_limit: 1000, ..plain() }, |talk| talk.make_ready(""));
}

#[test]
fn an_error_ends_the_padding_but_not_the_session() {
    let mut talk = padded(1, 1000);
    assert!(!talk.transmit().is_empty());
    talk.server("502 stop that\r\n").client("");
    let outputs = talk.outputs();
    assert!(matches!(
        outputs.as_slice(),
        [SessionOutput::StartTls, SessionOutput::Note(SessionNote::PaddingRefused(_)), SessionOutput::Ready]
    ));
    talk.quit();
    let end = talk.client("QUIT\r\n").server("221 bye\r\n").end();
    assert_eq!(
        end,
        SessionEnd { phase: Phase::Ready, cause: EndCause::Quit, padding_failed: true, no_pipelining: false }
    );
}

#[test]
fn a_server_that_drops_during_padding_is_told_of() {
    let drops: [fn(&mut Talk) -> &mut Talk; 3] =
        [|talk| talk.closed(), |talk| talk.server("421 bye\r\n"), |talk| talk.pass(300)];
    for drops in drops {
        let mut talk = padded(1, 1000);
        assert!(!talk.transmit().is_empty());
        drops(&mut talk);
        let end = talk.end();
        assert_eq!((end.phase, end.padding_failed), (Phase::Padding, true));
    }
}

#[test]
fn a_session_that_is_no_longer_needed_during_padding_is_not_the_fault_of_the_server() {
    let mut talk = padded(1, 1000);
    talk.quit();
    let end = talk.end();
    assert_eq!(
        end,
        SessionEnd {
            phase: Phase::Padding,
            cause: EndCause::Quit,
            padding_failed: false,
            no_pipelining: false
        }
    );
}

#[test]
fn padding_as_a_whole_has_one_timeout() {
    let mut talk = padded(1, 1000);
    for _ in 0..2 {
        assert!(!talk.transmit().is_empty());
        talk.pass(149).server("250 ok\r\n");
    }
    assert_eq!(talk.session.phase(), Phase::Padding);
    assert_eq!(talk.pass(2).end().phase, Phase::Padding);
}

#[test]
fn quit_waits_for_the_reply_but_not_for_long() {
    // RFC 5321 section 4.1.1.10
    let answers: [fn(&mut Talk) -> &mut Talk; 3] =
        [|talk| talk.server("221 bye\r\n"), |talk| talk.closed(), |talk| talk.pass(5)];
    for answer in answers {
        dialogue(&plain(), |talk| {
            talk.make_ready("");
            talk.quit();
            talk.client("QUIT\r\n").pass(4);
            assert!(talk.outputs().is_empty());
            answer(talk);
            let end = talk.end();
            assert_eq!(
                end,
                SessionEnd {
                    phase: Phase::Ready,
                    cause: EndCause::Quit,
                    padding_failed: false,
                    no_pipelining: false
                }
            );
        });
    }
}

#[test]
fn quit_ends_a_negotiation_at_once() {
    dialogue(&plain(), |talk| {
        talk.server("220 mx\r\n").quit();
        assert_eq!((talk.end().cause, talk.transmit().len()), (EndCause::Quit, 0));
    });
}

#[test]
fn a_ready_session_ends_by_a_421_and_by_anything_else_that_was_not_asked_for() {
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        assert_eq!(reply_text(&talk.server("421 idle\r\n").end().cause), "421 idle no command");
    });
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        assert_eq!(
            out_of_step(&talk.server("250 ok\r\n").end()),
            "the server spoke without being asked: 250 ok"
        );
    });
}

#[test]
fn a_reply_before_its_command_ends_the_session() {
    dialogue(&plain(), |talk| {
        let end = talk.server("220 mx\r\n250 mx\r\n").end();
        assert_eq!(out_of_step(&end), "the server replied before it was asked: 250 mx");
    });
}

#[test]
fn dribbled_octets_do_not_extend_a_timeout() {
    // RFC 5321 section 4.5.3.2.1
    let mut talk = Talk::new(plain(), 1);
    let (deadline, phase) = talk.session.poll_timeout().unwrap();
    assert_eq!(phase, Phase::Greeting);
    for _ in 0..29 {
        talk.server("220-\r\n").pass(10);
    }
    assert_eq!(talk.session.poll_timeout(), Some((deadline, Phase::Greeting)));
    assert_eq!(lost(&talk.pass(10).end()), "timed out waiting for the reply to greeting");
}

#[test]
fn a_timeout_that_comes_too_early_does_nothing() {
    let mut talk = Talk::new(plain(), 1);
    talk.pass(299);
    assert!(talk.outputs().is_empty());
    assert_eq!(talk.session.phase(), Phase::Greeting);
}

#[test]
fn what_is_no_reply_ends_the_session() {
    dialogue(&plain(), |talk| {
        let end = talk.server("HTTP/1.1 400 Bad Request\r\n").end();
        assert_eq!(lost(&end), "the server sent a line that is no SMTP reply");
        talk.server("220 mx\r\n").closed().tls(true).pass(1000).client("");
        assert!(talk.outputs().is_empty());
    });
}

#[test]
fn a_server_that_gives_up_before_a_command_is_out_has_not_answered_it() {
    // RFC 5321 section 3.8
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        talk.begin(mail(1, "x\r\n")).server("421 idle for too long\r\n");
        let outputs = talk.outputs();
        let Some(SessionOutput::Ended(end)) = outputs.last() else { panic!("no end in {outputs:?}") };
        assert_eq!(reply_text(&end.cause), "421 idle for too long no command");
    });
}
