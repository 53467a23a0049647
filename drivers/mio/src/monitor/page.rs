//! The page for people.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// The page, which needs nothing from elsewhere but `/status.json`.
const PAGE: &str = include_str!("page.html");

/// The page, with what a browser is told about it.
#[derive(Debug)]
pub(super) struct Page {
    text: Rc<str>,
    fields: Rc<str>,
}

impl Page {
    /// Allows the page its own style and script and nothing else, so that a text which somebody smuggles in does nothing.
    pub(super) fn new() -> Self {
        let (style, script) = (digest_of("style"), digest_of("script"));
        let fields = format!(
            "Content-Security-Policy: default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
        );
        Self { text: PAGE.into(), fields: fields.into() }
    }

    pub(super) fn text(&self) -> Rc<str> {
        Rc::clone(&self.text)
    }

    /// Returns the header fields that go with it.
    pub(super) fn fields(&self) -> Rc<str> {
        Rc::clone(&self.fields)
    }
}

/// Returns the source expression of the page's only element of this name (CSP level 3, section 2.3.1).
fn digest_of(element: &str) -> String {
    let (start, end) = (format!("<{element}>"), format!("</{element}>"));
    let content = PAGE.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
    let digest = Sha256::digest(content.map_or("", |(content, _)| content));
    format!("'sha256-{}'", STANDARD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        for element in ["style", "script"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
            assert_eq!(PAGE.matches(&format!("<{element}>")).count(), 1, "{element}");
        }
        for outside in ["http://", "https://", "src=", "@import", "style=\"", " on"] {
            let found = PAGE.match_indices(outside).map(|(at, _)| &PAGE[at..(at + 30).min(PAGE.len())]);
            let found: Vec<&str> = found.filter(|text| outside != " on" || text.contains("=\"")).collect();
            assert!(found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn only_its_own_style_and_script_are_allowed() {
        let page = Page::new();
        assert_eq!(page.fields().matches("'sha256-").count(), 2);
        assert!(!page.fields().contains("unsafe") && page.fields().contains("default-src 'none'"));
    }
}
