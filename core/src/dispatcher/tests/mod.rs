//! Behaviour of the dispatcher, seen through its facade only.

mod books;
mod bounces;
mod candidates;
mod conversation;
mod dane;
mod destination_lines;
mod drain;
mod explain;
mod fairness;
mod flights;
mod given_orders;
mod held;
mod hold_lines;
mod hostile;
mod hosts;
mod idle;
mod modes;
mod new_settings;
mod orders;
mod outbox;
mod outbox_changes;
mod probe;
mod pushback;
mod queueing;
mod refusals;
mod refused_connections;
mod rescan;
mod server;
mod server_limits;
mod set_aside;
mod signing;
mod silence;
mod sts;
mod told;
mod trouble;
mod watching;
mod wishes;
mod world;

use std::borrow::ToOwned as _;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use bytes::Bytes;

use self::server::{Behaviour, Connect, LargeHello};
use self::world::{World, settings, with_policy};
use super::*;
use crate::address::Domain;
use crate::event::{Event, FailureKind};
use crate::explanation;
use crate::flight::Uncertain;
use crate::io::{CloseReason, ConnectError, InquiryId, QueryId, Tls, TlsVersion, Verification};
use crate::next_hop::{Port, TlsMode};
use crate::outbox::{MailId, StoreRequest, StoreTrouble};
use crate::policy::{Family, Policy, RateLimit};
use crate::settings::{BounceRules, Schedule, Told};
use crate::time::UnixTime;
use crate::tls::Groups;

const SENDER: &str = "sender@origin.example";
