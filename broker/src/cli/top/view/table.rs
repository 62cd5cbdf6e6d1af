//! The rows of a sheet as a table: which columns find room, how wide they are, and which part of a long list is seen.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table, Widget};

use super::super::sheet::{Column, Sheet};
use super::Look;
use crate::cli::output::cut;

/// Blanks between two columns.
const GAP: u16 = 2;

pub(super) fn draw(
    sheet: &Sheet,
    selected: Option<usize>,
    is_focused: bool,
    look: Look,
    area: Rect,
    buffer: &mut Buffer,
) {
    let screen = area.width;
    let shown = || sheet.columns.iter().enumerate().filter(move |(_, column)| column.from <= screen);
    let widths: Vec<u16> = shown().map(|(n, column)| width(sheet, n, column, screen)).collect();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let header = shown().map(|(_, column)| cell(column.title.into(), column));
    let visible = usize::from(area.height.saturating_sub(1));
    let rows = sheet.rows.iter().enumerate().skip(first(selected, sheet.rows.len(), visible)).take(visible);
    let rows = rows.map(|(at, row)| {
        let cells = shown().zip(&widths).map(|((n, column), width)| {
            // The last one is cut by the edge of the screen.
            let text = if column.width_max == 0 { row.cells[n].clone() } else { cut(&row.cells[n], (*width).into()) };
            cell(text, column)
        });
        let mut style = look.tone(row.tone);
        if selected == Some(at) && is_focused {
            style = style.add_modifier(Modifier::REVERSED);
        }
        Row::new(cells).style(style)
    });
    let constraints = shown().zip(&widths).map(|((_, column), width)| match column.width_max {
        0 => Constraint::Fill(1),
        _ => Constraint::Length(*width),
    });
    let table = Table::new(rows, constraints).header(Row::new(header).style(bold)).column_spacing(GAP);
    table.render(area, buffer);
    if sheet.rows.is_empty() && visible > 0 {
        buffer.set_stringn(area.x, area.y + 1, sheet.nothing, area.width.into(), Style::new());
    }
}

fn cell(text: String, column: &Column) -> Cell<'static> {
    let line = Line::from(text);
    Cell::from(if column.is_number { line.right_aligned() } else { line })
}

/// As its widest cell, within the column's bound; on a wide screen the bound is wider too.
fn width(sheet: &Sheet, n: usize, column: &Column, screen: u16) -> u16 {
    let title = Line::from(column.title).width();
    let widest = sheet.rows.iter().map(|row| Line::from(row.cells[n].as_str()).width()).max().unwrap_or(0);
    let max = u32::from(column.width_max) * u32::from(screen.max(80)) / 80;
    let width = widest.min(usize::try_from(max).unwrap_or(usize::MAX)).max(title);
    u16::try_from(width).unwrap_or(u16::MAX)
}

/// The first row that is seen: the selected one is kept in the middle.
fn first(selected: Option<usize>, n_rows: usize, visible: usize) -> usize {
    let wanted = selected.map_or(0, |at| at.saturating_sub(visible / 2));
    wanted.min(n_rows.saturating_sub(visible))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_row_is_always_seen() {
        // Proves it for every row of lists shorter and longer than the screen.
        for (n_rows, visible) in [(0, 5), (3, 5), (5, 5), (6, 5), (100, 7), (100, 1)] {
            for at in 0..n_rows {
                let first = first(Some(at), n_rows, visible);
                assert!((first..first + visible).contains(&at), "{at} of {n_rows} in {visible}");
                assert!(first == 0 || first + visible <= n_rows, "no blank lines at the end");
            }
        }
    }
}
