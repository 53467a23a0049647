//! Whatever happens in whatever order: no panic, and the invariants hold.

use alloc::collections::BTreeMap;
use alloc::vec;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::*;
use crate::rng::Rng;
use crate::system_error::{NetworkTrouble, SystemError, TlsTrouble};

/// Something that happens to a session.
#[derive(Clone, Debug)]
enum Step {
    Server(Vec<u8>),
    TlsEstablished(bool),
    TlsFailed,
    Closed,
    Pass(u64),
    Begin,
    Supply(usize),
    Quit,
    Transmit(usize),
}

/// Replies that lead on, replies that do not, and rubbish.
fn server_octets() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        8 => Just("250 ok\r\n"),
        3 => Just("220 mx\r\n"),
        3 => Just("354 go\r\n"),
        2 => Just("250-mx\r\n250-STARTTLS\r\n250-SIZE 30\r\n250-AUTH PLAIN LOGIN SCRAM-SHA-256\r\n250 SMTPUTF8\r\n"),
        2 => Just("250-mx\r\n250 AUTH LOGIN\r\n"),
        2 => Just("250-mx\r\n250 PIPELINING\r\n"),
        1 => Just("250 ok\r\n250 ok\r\n"),
        1 => Just("503 what?\r\n"),
        2 => Just("235 ok\r\n"),
        2 => Just("334 VXNlcm5hbWU6\r\n"),
        1 => Just("452 full\r\n"),
        1 => Just("450 later\r\n"),
        1 => Just("550 no\r\n"),
        1 => Just("421 bye\r\n"),
        1 => Just("250-"),
        1 => Just("25"),
    ];
    prop_oneof![9 => text.prop_map(|text| text.as_bytes().to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..20)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => server_octets().prop_map(Step::Server),
        30 => prop_oneof![Just(1), Just(7), Just(1000)].prop_map(Step::Transmit),
        10 => Just(Step::Begin),
        4 => any::<bool>().prop_map(Step::TlsEstablished),
        4 => (0..12_usize).prop_map(Step::Supply),
        2 => prop_oneof![Just(1), Just(299), Just(600)].prop_map(Step::Pass),
        1 => Just(Step::TlsFailed),
        1 => Just(Step::Closed),
        1 => Just(Step::Quit),
    ]
}

/// Steps as a peer and a parent that mostly keep to the protocol take them, with a disturbance here and there.
fn mostly_right() -> impl Strategy<Value = Vec<Step>> {
    let polite = ["220 mx\r\n", "250 ok\r\n"].map(|text| Step::Server(text.into()));
    let mut negotiation: Vec<Step> =
        polite.into_iter().flat_map(|step| [step, Step::Transmit(1000)]).collect();
    for text in ["", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 taken\r\n"] {
        let step = if text.is_empty() { Step::Begin } else { Step::Server(text.into()) };
        negotiation.extend([step, Step::Transmit(1000)]);
        if text.starts_with("354") {
            // The end of the message comes after a pause.
            negotiation.extend([Step::Supply(20), Step::Transmit(1000), Step::Pass(1), Step::Transmit(1000)]);
        }
    }
    let twice = [negotiation.clone(), negotiation.split_off(4)].concat();
    let length = twice.len();
    prop::collection::vec((0..length, any::<bool>(), step()), 0..4).prop_map(move |disturbances| {
        let mut steps = twice.clone();
        for (at, replaces, step) in disturbances {
            if replaces {
                steps[at] = step;
            } else {
                steps.insert(at, step);
            }
        }
        steps
    })
}

fn any_config() -> impl Strategy<Value = SessionConfig> {
    let mode =
        prop_oneof![4 => Just(TlsMode::Plain), 1 => Just(TlsMode::StartTls), 1 => Just(TlsMode::Implicit)];
    (mode, any::<bool>(), any::<bool>(), any::<bool>(), 0..3_u16).prop_map(
        |(tls, plain_fallback, has_credentials, auth_unprotected, padding_limit)| {
            let config = SessionConfig { plain_fallback, padding_limit, ..config(tls) };
            if has_credentials { with_credentials(config, auth_unprotected) } else { config }
        },
    )
}

/// What must hold, whatever happens.
#[derive(Default)]
struct Checker {
    begun: i64,
    /// Which recipients are still to come back.
    open: BTreeMap<MailId, ()>,
    has_ended: bool,
    delivered: usize,
    /// True if the server may have offered PIPELINING.
    may_pipeline: bool,
    /// True if a message was refused before it was sent.
    is_doubted: bool,
    /// What the server said since the last message was handed out.
    since_message: Option<Vec<u8>>,
}

impl Checker {
    fn take_outputs(&mut self, session: &mut Session) {
        while let Some(output) = session.poll_output() {
            assert!(!self.has_ended, "{output:?} after the end");
            match output {
                SessionOutput::Verdicts(verdicts) => {
                    for (Recipient { id, .. }, outcome) in verdicts {
                        assert!(self.open.remove(&id).is_some(), "{id} is decided twice");
                        if let Outcome::Delivered(reply) = outcome {
                            self.delivered += 1;
                            let said = self.since_message.as_deref().expect("delivered without a message");
                            // After a doubtful refusal a success counts that comes before the reply to QUIT.
                            let is_taken =
                                said.starts_with(b"2") || said.starts_with(b"5") || self.is_doubted;
                            assert!(is_taken, "delivered by {}", said.escape_ascii());
                            assert_eq!(reply.code().as_u16() / 100, 2);
                        }
                    }
                }
                SessionOutput::Ended(_) => {
                    self.has_ended = true;
                    assert!(self.open.is_empty(), "the session ended without a verdict for {:?}", self.open);
                }
                SessionOutput::Ready => assert!(self.open.is_empty() || self.may_pipeline),
                SessionOutput::NeedData { limit, .. } => assert!(limit > 0),
                SessionOutput::StartTls
                | SessionOutput::Sent(_)
                | SessionOutput::SentData(_)
                | SessionOutput::Received(_)
                | SessionOutput::Authenticated(_)
                | SessionOutput::Note(_) => {}
            }
        }
        assert_eq!(self.has_ended, session.phase() == Phase::Ended);
        if self.has_ended {
            assert!(!session.wants_transmit() && session.poll_timeout().is_none());
        }
    }

    fn begin(&mut self, session: &mut Session, now: Instant) {
        let mut transaction = mail(2, "head.\n");
        // Some messages are here as a whole.
        transaction.data_octets += if self.begun % 4 == 0 { 10 } else { 0 };
        for Recipient { id, .. } in &mut transaction.recipients {
            self.begun += 1;
            *id = MailId(self.begun);
            if !self.has_ended {
                self.open.insert(*id, ());
            }
        }
        session.begin(now, transaction);
    }

    fn take(&mut self, session: &mut Session, now: &mut Instant, step: &Step) {
        match step {
            Step::Server(octets) => {
                if let Some(said) = &mut self.since_message {
                    said.extend(octets);
                }
                self.is_doubted |= session.phase() == Phase::MailData && octets.starts_with(b"5");
                self.may_pipeline |= octets.ends_with(b"PIPELINING\r\n");
                session.handle_received(*now, octets);
            }
            Step::TlsEstablished(is_valid) => session.handle_tls_established(
                *now,
                &Tls::new(TlsVersion::V1_3, Verification::for_tests(*is_valid)),
            ),
            Step::TlsFailed => session.handle_tls_failed(*now, SystemError::new(TlsTrouble::Alert, "alert")),
            Step::Closed => session
                .handle_closed(*now, CloseReason::Broken(SystemError::new(NetworkTrouble::Reset, "reset"))),
            Step::Pass(seconds) => {
                *now = *now + Duration::from_secs(*seconds);
                session.handle_timeout(*now);
            }
            Step::Begin => self.begin(session, *now),
            Step::Supply(octets) => session.supply_data(*now, Bytes::from(alloc::vec![b'.'; *octets])),
            Step::Quit => session.quit(*now),
            Step::Transmit(limit) => {
                let mut octets = BytesMut::new();
                let wanted = session.wants_transmit();
                let awaited_final_reply = session.awaits_final_reply();
                assert_eq!(session.poll_transmit(*now, *limit, &mut octets), !octets.is_empty());
                assert!(wanted || octets.is_empty());
                assert!(octets.len() <= 2 * limit + 10, "{} octets for {limit}", octets.len());
                // Only the final dot leads there.
                if !awaited_final_reply && session.awaits_final_reply() {
                    assert!(octets.ends_with(b".\r\n"));
                    self.since_message = Some(Vec::new());
                }
            }
        }
        self.take_outputs(session);
    }
}

fn run(config: SessionConfig, steps: &[Step]) -> Checker {
    let mut now = Instant::from_micros(5);
    let mut session = Session::new(config, Rng::from_seed([4; 32]), now);
    let mut checker = Checker::default();
    checker.take_outputs(&mut session);
    for step in steps {
        checker.take(&mut session, &mut now, step);
    }
    // In the end the connection breaks: then nothing may stay open.
    checker.take(&mut session, &mut now, &Step::Closed);
    assert!(checker.has_ended && checker.open.is_empty());
    checker
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_happens_each_recipient_comes_back_once(
        config in any_config(), steps in prop::collection::vec(step(), 0..60),
    ) {
        run(config, &steps);
    }

    #[test]
    fn a_disturbed_conversation_never_delivers_wrongly(config in any_config(), steps in mostly_right()) {
        run(config, &steps);
    }

    #[test]
    fn pieces_make_no_difference(
        config in any_config(), octets in prop::collection::vec(server_octets(), 0..20), piece in 1..9_usize,
    ) {
        let lead = |piece: usize| {
            let mut talk = Talk::new(config.clone(), piece);
            let mut sent = Vec::new();
            for octets in &octets {
                for piece in octets.chunks(piece) {
                    talk.session.handle_received(talk.now, piece);
                }
                sent.push(talk.transmit());
                talk.begin(mail(1, "x"));
            }
            (sent, talk.outputs())
        };
        prop_assert_eq!(lead(piece), lead(usize::MAX));
    }
}

#[test]
fn the_undisturbed_conversation_of_these_tests_delivers() {
    // Otherwise they would prove little.
    let steps = mostly_right();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut delivered = 0;
    for _ in 0..50 {
        let steps = steps.new_tree(&mut runner).unwrap().current();
        delivered += run(plain(), &steps).delivered;
    }
    assert!(delivered > 20, "{delivered}");
}
