//! The question before what nothing brings back, as a page. With JavaScript the button asks the same in a dialog and says
//! `confirmed` with the form; without it this page sends the form again with that word.

use askama::Template;

use super::{Frame, Shown, Visit, page};
use crate::request::Fields;

pub(super) struct Question<'a> {
    pub(super) text: &'a str,
    /// What is done when it is answered with yes, for the button.
    pub(super) yes: &'a str,
    /// Where the form goes and where its sender came from: paths without the base.
    pub(super) action: &'a str,
    pub(super) back: &'a str,
    /// Of the navigation.
    pub(super) page: &'static str,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage<'a> {
    frame: Frame,
    question: Question<'a>,
    fields: &'a Fields,
}

pub(super) fn is_sure(fields: &Fields) -> bool {
    fields.has("confirmed")
}

impl Question<'_> {
    /// About a form with these fields.
    pub(super) fn ask(self, visit: &Visit, fields: &Fields) -> Shown {
        page(&ConfirmPage { frame: visit.frame(self.page, "Sure?"), question: self, fields })
    }
}
