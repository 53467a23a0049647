//! How a model server behaves.

use crate::dice::Dice;
use cmail_delivery::io::Groups;

/// The behaviour of a server. Chances are in thousandths of the occasions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Temperament {
    /// Its kind, for the dialogue.
    pub(crate) kind: &'static str,
    /// The greeting: 220, unless it is this.
    pub(crate) greeting: Option<&'static str>,
    pub(crate) knows_ehlo: bool,
    /// After the greeting it never says anything.
    pub(crate) is_mute: bool,
    pub(crate) extensions: Extensions,
    /// The reaction to several commands at once.
    pub(crate) batches: BatchConduct,
    /// DATA is taken although no recipient was (RFC 2920 section 3.1).
    pub(crate) takes_nobody: bool,
    /// The reaction to STARTTLS.
    pub(crate) tls: TlsConduct,
    /// True if the certificate is valid for every name.
    pub(crate) certificate_is_valid: bool,
    /// A recipient is deferred until this many seconds after the first attempt.
    pub(crate) greylist_s: Option<u64>,
    /// 421 to a command.
    pub(crate) shed: u32,
    /// Most connections at once; others are greeted with 421.
    pub(crate) connection_limit: Option<usize>,
    /// Most recipients of a transaction; others get 452.
    pub(crate) recipient_limit: Option<usize>,
    /// The number of messages that it accepts on a connection, and its refusal of more.
    pub(crate) message_limit: Option<(u32, Tiredness)>,
    /// The number of messages that it accepts in an hour; then MAIL is refused.
    pub(crate) hourly_limit: Option<u32>,
    /// A temporary refusal of MAIL, RCPT, DATA or the message.
    pub(crate) busy: u32,
    /// A permanent refusal of MAIL, RCPT, DATA or the message.
    pub(crate) strict: u32,
    /// The connection is dropped after the final dot, the message not accepted.
    pub(crate) drop_before: u32,
    /// The connection is dropped after the final dot, the message accepted.
    pub(crate) drop_after: u32,
    /// Silence after the final dot, the message accepted.
    pub(crate) mute_after: u32,
    /// Something that is not a reply.
    pub(crate) garbage: u32,
    /// An unasked reply.
    pub(crate) unasked: u32,
    /// The reply to a message is sent twice.
    pub(crate) twice: u32,
    /// 500 in the middle of a message, which is taken nevertheless if its end comes.
    pub(crate) out_of_step: u32,
    /// 500 to the end of a message, and then the verdict.
    pub(crate) out_of_step_at_end: u32,
    /// The longest delay of a reply, in seconds.
    pub(crate) slowness_s: u64,
    /// Replies come octet by octet, at most this many seconds apart.
    pub(crate) dribble_s: u64,
    /// It repeats lines that it does not understand.
    pub(crate) echoes: bool,
    /// NOOP and RSET are refused, or the connection is dropped.
    pub(crate) hates_padding: u32,
    /// AUTH is refused.
    pub(crate) auth_refused: u32,
}

/// What a server offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions {
    pub(crate) starttls: bool,
    pub(crate) size: Option<u64>,
    pub(crate) eight_bit_mime: bool,
    pub(crate) pipelining: bool,
    pub(crate) dsn: bool,
    pub(crate) limits: Limits,
    pub(crate) auth: &'static str,
}

/// The limits that a server announces (RFC 9422), and keeps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// Most transactions of a connection.
    pub(crate) mails: Option<u32>,
    /// Most recipients of a transaction.
    pub(crate) recipients: Option<usize>,
    /// Most domains of recipients on a connection.
    pub(crate) domains: Option<usize>,
}

impl Limits {
    fn any(dice: &mut Dice) -> Self {
        if !dice.chance(150) {
            return Self::default();
        }
        Self {
            mails: Some(1 + u32::try_from(dice.index(9)).unwrap_or(0)).filter(|_| dice.chance(500)),
            recipients: Some(1 + dice.index(4)).filter(|_| dice.chance(500)),
            domains: Some(1 + dice.index(2)).filter(|_| dice.chance(500)),
        }
    }
}

/// The reaction to several commands at once (RFC 2920).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum BatchConduct {
    /// They are obeyed one after the other.
    #[default]
    Works,
    /// Octets that arrived together with MAIL or DATA are lost.
    LosesInput,
    /// The second is refused.
    RefusesSecond,
    /// The connection is dropped.
    Drops,
    /// 421 somewhere in it.
    Leaves,
}

/// The way in which a server refuses a message that is one too many for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tiredness {
    /// 452 to MAIL, as OpenSMTPD does.
    AtMail,
    /// 452 to each RCPT.
    AtRcpt,
    /// 451 to DATA, as Stalwart does.
    AtData,
    /// 421 to MAIL.
    Leaves,
    /// It does not understand MAIL any more.
    OutOfStep,
}

/// The reaction to STARTTLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TlsConduct {
    /// It works.
    #[default]
    Works,
    /// The command is refused.
    Refused,
    /// The handshake fails.
    Fails,
    /// The handshake never ends.
    Hangs,
    /// Plain text follows the reply to STARTTLS.
    Injected,
    /// A first message that is larger than a segment is waited for in vain.
    HangsIfLarge,
    /// The connection is dropped by such a message.
    DropsIfLarge,
}

impl Tiredness {
    fn any(dice: &mut Dice) -> Self {
        let all = [Self::AtMail, Self::AtRcpt, Self::AtData, Self::Leaves, Self::OutOfStep];
        dice.pick(&all).copied().unwrap_or(Self::AtMail)
    }
}

impl TlsConduct {
    /// Returns whether a handshake that offers these groups never ends.
    pub(crate) fn hangs(self, groups: Groups) -> bool {
        self == Self::Hangs || (self == Self::HangsIfLarge && groups == Groups::All)
    }

    /// Returns whether the connection is dropped by a handshake that offers these groups.
    pub(crate) fn drops(self, groups: Groups) -> bool {
        self == Self::DropsIfLarge && groups == Groups::All
    }

    /// Returns whether a handshake fails.
    pub(crate) fn fails(self) -> bool {
        matches!(self, Self::Fails | Self::Injected)
    }
}

impl Temperament {
    /// Returns a server like most.
    pub(crate) fn normal(dice: &mut Dice) -> Self {
        let mechanisms = ["PLAIN LOGIN", "LOGIN", "PLAIN", "CRAM-MD5 PLAIN", "XOAUTH2 LOGIN"];
        Self {
            kind: "normal",
            knows_ehlo: true,
            extensions: Extensions {
                starttls: dice.chance(700),
                size: Some(10_000_000).filter(|_| dice.chance(700)),
                eight_bit_mime: dice.chance(800),
                pipelining: dice.chance(800),
                dsn: dice.chance(500),
                limits: Limits::any(dice),
                auth: dice.pick(&mechanisms).copied().unwrap_or("PLAIN"),
            },
            certificate_is_valid: dice.chance(700),
            ..Self::default()
        }
    }

    /// Returns an unusual server.
    pub(crate) fn odd(dice: &mut Dice) -> Self {
        let normal = Self::normal(dice);
        match dice.below(29) {
            0 => Self { kind: "greylisting", greylist_s: Some(dice.within(60..=4000)), ..normal },
            1 => Self { kind: "load-shedding", shed: 150, ..normal },
            2 => Self { kind: "crowded", connection_limit: Some(dice.index(3)), ..normal },
            3 => Self { kind: "slow", slowness_s: dice.within(5..=200), ..normal },
            4 => Self { kind: "tarpit", dribble_s: dice.within(1..=20), ..normal },
            5 => Self {
                kind: "liar",
                tls: TlsConduct::Refused,
                extensions: Extensions { starttls: true, auth: "SCRAM-SHA-256 PLAIN", ..normal.extensions },
                auth_refused: 700,
                ..normal
            },
            6 => Self { kind: "drops before accepting", drop_before: 400, ..normal },
            7 => Self { kind: "drops after accepting", drop_after: 400, ..normal },
            8 => Self { kind: "mute after accepting", mute_after: 300, ..normal },
            9 => Self { kind: "garbling", garbage: 100, ..normal },
            10 => Self { kind: "babbling", unasked: 60, ..normal },
            11 => Self { kind: "busy", busy: 300, ..normal },
            12 => Self { kind: "strict", strict: 200, ..normal },
            13 => Self { kind: "narrow", recipient_limit: Some(1 + dice.index(4)), ..normal },
            14 => Self {
                kind: "refusing",
                greeting: dice.pick(&["554 no mail here", "421 later", "521 never"]).copied(),
                ..normal
            },
            15 => Self { kind: "ancient", knows_ehlo: false, ..normal },
            16 => Self {
                kind: "broken TLS",
                tls: dice
                    .pick(&[
                        TlsConduct::Fails,
                        TlsConduct::Hangs,
                        TlsConduct::Injected,
                        TlsConduct::HangsIfLarge,
                        TlsConduct::DropsIfLarge,
                    ])
                    .copied()
                    .unwrap_or_default(),
                extensions: Extensions { starttls: true, ..normal.extensions },
                ..normal
            },
            17..=21 => Self::bad_at_batches(normal, dice),
            22 => Self { kind: "says it twice", twice: 200, strict: 200, ..normal },
            23 => Self { kind: "confused by long data", out_of_step: 200, ..normal },
            24 => Self { kind: "confused by a message", out_of_step_at_end: 200, ..normal },
            25 | 26 => Self {
                kind: "limited by connection",
                message_limit: Some((1 + u32::try_from(dice.index(5)).unwrap_or(0), Tiredness::any(dice))),
                ..normal
            },
            27 => Self {
                kind: "limited by hour",
                hourly_limit: Some(1 + u32::try_from(dice.index(20)).unwrap_or(0)),
                ..normal
            },
            _ => Self { kind: "echoing", echoes: true, hates_padding: 300, auth_refused: 500, ..normal },
        }
    }

    /// Returns a server that greets, and never says anything more.
    pub(crate) fn mute(dice: &mut Dice) -> Self {
        Self { kind: "mute after the greeting", is_mute: true, ..Self::normal(dice) }
    }

    /// A server that offers PIPELINING and should not.
    fn bad_at_batches(normal: Self, dice: &mut Dice) -> Self {
        let extensions = Extensions { pipelining: true, ..normal.extensions.clone() };
        let normal = Self { extensions, ..normal };
        match dice.below(5) {
            0 => Self { kind: "loses what is pipelined", batches: BatchConduct::LosesInput, ..normal },
            1 => Self { kind: "refuses what is pipelined", batches: BatchConduct::RefusesSecond, ..normal },
            2 => Self { kind: "drops who pipelines", batches: BatchConduct::Drops, ..normal },
            3 => Self { kind: "leaves who pipelines", batches: BatchConduct::Leaves, ..normal },
            _ => Self { kind: "takes mail for nobody", takes_nobody: true, strict: 200, ..normal },
        }
    }

    /// The same server, well-behaved.
    pub(crate) fn healed(&self) -> Self {
        Self {
            kind: "healed",
            knows_ehlo: true,
            // Mail that needs TLS must be deliverable, too.
            extensions: Extensions { starttls: true, auth: "PLAIN LOGIN", ..self.extensions.clone() },
            certificate_is_valid: true,
            ..Self::default()
        }
    }
}
