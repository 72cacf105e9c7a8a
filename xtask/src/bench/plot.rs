//! Draws bar charts as SVG.

use anyhow::Result;
use plotters::prelude::{
    BLACK, Color as _, IntoDrawingArea as _, RGBColor, Rectangle, SVGBackend, Text, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{IntoFont as _, IntoTextStyle as _, TextStyle};

/// One figure of all programs, on a scale of its own.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) heading: String,
    /// In the order of the programs; None leaves the place empty.
    pub(super) values: Vec<Option<f64>>,
}

/// Draws a row for each of `names`, a panel for each figure. Ours stand out: those that begin with
/// `shiplane`.
pub(super) fn draw(title: &str, names: &[&str], panels: &[Panel]) -> Result<String> {
    let mut text = String::new();
    let width = NAMES_WIDTH + PANEL_WIDTH * i32::try_from(panels.len())?;
    let height = HEAD_HEIGHT + ROW_HEIGHT * i32::try_from(names.len())? + ROW_HEIGHT / 2;
    {
        let size = (u32::try_from(width)?, u32::try_from(height)?);
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let drawing = |failure: &dyn std::fmt::Display| anyhow::anyhow!("cannot draw: {failure}");
        area.fill(&WHITE).map_err(|failure| drawing(&failure))?;
        for shape in shapes(title, names, panels)? {
            let drawn = match shape {
                Shape::Label { text, at, style } => area.draw(&Text::new(text, at, style)),
                Shape::Bar { corners, color } => area.draw(&Rectangle::new(corners, color.filled())),
            };
            drawn.map_err(|failure| drawing(&failure))?;
        }
        area.present().map_err(|failure| drawing(&failure))?;
    }
    Ok(text)
}

enum Shape {
    Label { text: String, at: (i32, i32), style: TextStyle<'static> },
    Bar { corners: [(i32, i32); 2], color: RGBColor },
}

fn shapes(title: &str, names: &[&str], panels: &[Panel]) -> Result<Vec<Shape>> {
    let label = |text: &str, at, size: f64, anchor| {
        let style = ("sans-serif", size).into_font().into_text_style(&NOWHERE).color(&BLACK).pos(anchor);
        Shape::Label { text: text.to_owned(), at, style }
    };
    let start = Pos::new(HPos::Left, VPos::Center);
    let mut shapes = vec![label(title, (MARGIN, 18), 20.0, start)];
    let row_middle =
        |row: usize| -> Result<i32> { Ok(HEAD_HEIGHT + ROW_HEIGHT * i32::try_from(row)? + ROW_HEIGHT / 2) };
    for (row, name) in names.iter().enumerate() {
        let end = Pos::new(HPos::Right, VPos::Center);
        shapes.push(label(name, (NAMES_WIDTH - 8, row_middle(row)?), 16.0, end));
    }
    for (column, panel) in panels.iter().enumerate() {
        let left = NAMES_WIDTH + PANEL_WIDTH * i32::try_from(column)?;
        shapes.push(label(&panel.heading, (left, HEAD_HEIGHT - 10), 15.0, start));
        let most = panel.values.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
        for (row, (value, name)) in panel.values.iter().zip(names).enumerate() {
            let Some(value) = value else { continue };
            let middle = row_middle(row)?;
            let right = left + (f64::from(BAR_WIDTH) * value / most).round() as i32;
            let corners = [(left, middle - BAR_HEIGHT / 2), (right.max(left + 1), middle + BAR_HEIGHT / 2)];
            let color = if name.starts_with("shiplane") { OURS } else { THEIRS };
            shapes.push(Shape::Bar { corners, color });
            shapes.push(label(&format!("{value:.2}"), (right + 5, middle), 15.0, start));
        }
    }
    Ok(shapes)
}

/// What a text's style could depend on, and does not here.
const NOWHERE: (u32, u32) = (1, 1);

const MARGIN: i32 = 12;
const HEAD_HEIGHT: i32 = 58;
const NAMES_WIDTH: i32 = 190;
const ROW_HEIGHT: i32 = 24;
const BAR_HEIGHT: i32 = 16;
const PANEL_WIDTH: i32 = 330;

/// The longest bar: leaves room for its number.
const BAR_WIDTH: i32 = 260;

const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const THEIRS: RGBColor = RGBColor(0xb0, 0xb6, 0xbe);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let values = vec![Some(2.0), Some(1.0), None];
        let panels = [Panel { heading: "GB/s".to_owned(), values }];
        let names = ["shiplane", "scp <&>", "gone"];
        let widths: Vec<i32> = shapes("a title", &names, &panels)
            .unwrap()
            .into_iter()
            .filter_map(|shape| match shape {
                Shape::Bar { corners: [(left, _), (right, _)], .. } => Some(right - left),
                Shape::Label { .. } => None,
            })
            .collect();
        assert_eq!(widths, [BAR_WIDTH, BAR_WIDTH / 2]);
        let svg = draw("a title", &names, &panels).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("scp &lt;&amp;&gt;") && svg.contains("a title"), "{svg}");
    }
}
