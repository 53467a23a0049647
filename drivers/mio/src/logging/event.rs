//! Logs what the dispatcher reports, with all that is known of it as keys and values.

use std::cell::OnceCell;

use cmail_delivery::event::{self, Event, EventName, Fields};
use log::Record;
use log::kv::{self, Key, Source, Value, VisitSource};

use super::format::{EVENT, PARENTHESIS};

/// Logs an event.
pub(crate) fn tell(event: &Event) {
    let level = match event.level() {
        event::Level::Error => log::Level::Error,
        event::Level::Warning => log::Level::Warn,
        event::Level::Info => log::Level::Info,
        event::Level::Debug => log::Level::Debug,
        event::Level::Trace => log::Level::Trace,
    };
    if level > log::max_level() {
        return;
    }
    let told = Told { event, fields: OnceCell::new(), parenthesis: OnceCell::new() };
    let mut record = Record::builder();
    record.level(level).target(module_path!()).module_path_static(Some(module_path!())).key_values(&told);
    log::logger().log(&record.args(format_args!("{event}")).build());
}

/// The values of the key `event` of what is no event of the dispatcher.
pub(crate) const ORDER: &str = EventName::Order.as_str();
pub(crate) const RELOAD: &str = EventName::Reload.as_str();
pub(crate) const START: &str = EventName::Start.as_str();
pub(crate) const STOP: &str = EventName::Stop.as_str();
pub(crate) const TLS: &str = EventName::Tls.as_str();

/// An event whose values are made only if somebody asks for them: a line of text needs no more than the parenthesis.
struct Told<'a> {
    event: &'a Event,
    fields: OnceCell<Fields<'a>>,
    parenthesis: OnceCell<Option<String>>,
}

impl Told<'_> {
    fn parenthesis(&self) -> Option<Value<'_>> {
        let parenthesis = self.parenthesis.get_or_init(|| self.event.parenthesis());
        parenthesis.as_deref().map(Value::from)
    }
}

impl Source for Told<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        visitor.visit_pair(Key::from_str(EVENT), Value::from(self.event.name().as_str()))?;
        for (name, value) in self.fields.get_or_init(|| self.event.fields()).iter() {
            let value = match value {
                event::Value::Text(text) => Value::from(&**text),
                event::Value::Number(number) => Value::from(*number),
                event::Value::Seconds(seconds) => Value::from(*seconds),
            };
            visitor.visit_pair(Key::from_str(name), value)?;
        }
        Ok(())
    }

    fn get(&self, key: Key<'_>) -> Option<Value<'_>> {
        if key.as_str() == PARENTHESIS { self.parenthesis() } else { None }
    }
}
