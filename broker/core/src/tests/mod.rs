//! The core in a world of its own: an event in, everything that it asks for compared.

mod abandon;
mod admin;
mod bounds;
mod bulk;
mod clients;
mod cursors;
mod dispatch;
mod drain;
mod due;
mod dump;
mod fair;
mod groups;
mod limits;
mod listings;
mod outcomes;
mod pages;
mod properties;
mod quiet;
mod restart;
mod sessions;
mod shares;
mod slot;
mod table;
mod words;
mod workflows;
mod world;
