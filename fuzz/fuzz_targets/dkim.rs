#![cfg_attr(fuzzing, no_main)]
//! What it checks is written in the library's module of the same name.

cmail_delivery_fuzz::target!(dkim);
