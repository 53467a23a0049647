//! Name servers are asked for TLSA records only of hosts whose addresses DNSSEC vouches for: others often fail at them, and must not hold
//! up mail that DANE does not protect.

use super::Checker;
use crate::facts::{Fact, Scene};

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct TlsaQuestions;

impl Checker for TlsaQuestions {
    fn name(&self) -> &'static str {
        "TLSA records are asked for where they count"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        if let Fact::NameAsked { question } = fact
            && question.is_tlsa
            && !scene.map.is_signed(&question.name)
        {
            return Err(format!("the TLSA records of {} are asked for, which is not signed", question.name));
        }
        Ok(())
    }
}
