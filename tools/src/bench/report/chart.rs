//! A chart: lines over two axes, as SVG without a colour of its own.
//!
//! The axes are logarithmic, or have one place for each value; both are drawn over plain numbers that the values are
//! mapped to, with a mark at each value that was measured. Colours are numbers that stand for names (`INK`, a line's
//! place): the page's style gives each its colour, one by day and one by night.

use std::cmp::Ordering;

use plotters::{
    coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged},
    prelude::{
        ChartBuilder, Circle, Color, DashedLineSeries, DrawingAreaErrorKind, DrawingBackend, EmptyElement,
        IntoDrawingArea, IntoFont, LineSeries, RGBColor, SVGBackend, ShapeStyle, Text,
    },
    style::text_anchor::{HPos, Pos, VPos},
};

/// Size of a chart. Pixels, until the page scales it.
const SIZE: (u32, u32) = (860, 440);
/// Place for what stands beside the axes. Pixels.
const LEFT: u32 = 86;
const BELOW: u32 = 52;
/// Text of the axes, and within the chart. Pixels.
const TEXT: u32 = 15;
const SMALL_TEXT: u32 = 13;
/// Stands for the colour of text and axes.
pub(super) const INK: RGBColor = RGBColor(1, 1, 0);
/// Stands for that of the grid.
pub(super) const GRID: RGBColor = RGBColor(1, 1, 1);
/// Stands for that of bounds.
pub(super) const BOUND: RGBColor = RGBColor(1, 1, 2);
/// Lines that have a colour of their own; then the first colour comes again. Count.
pub(super) const COLOURS: usize = 8;

/// Stands for the colour of a line.
pub(super) fn colour(line: usize) -> RGBColor {
    RGBColor(1, 2, (line % COLOURS) as u8)
}

/// The number in SVG that stands for a colour.
pub(super) fn number(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// How values become places on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// By their logarithm.
    Log,
    /// One place for each.
    Each,
}

/// The axis of what was asked for.
#[derive(Clone, Debug)]
pub(super) struct Across {
    pub(super) title: String,
    pub(super) scale: Scale,
    /// Values and their names, in order.
    pub(super) marks: Vec<(f64, String)>,
}

/// One line, over the values of the axis across.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Its colour, by place.
    pub(super) colour: usize,
    pub(super) is_dashed: bool,
}

/// A line that cannot be crossed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// See the file's header.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) across: Across,
    /// What the axis upwards is, with its unit.
    pub(super) upwards: String,
    /// How its values are written.
    pub(super) written: fn(f64) -> String,
    pub(super) lines: Vec<Line>,
    pub(super) bounds: Vec<Bound>,
}

/// An axis with marks at given places.
#[derive(Clone, Debug)]
struct Marked {
    range: (f64, f64),
    marks: Vec<f64>,
}

impl Ranged for Marked {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (from, to) = self.range;
        let share = (value - from) / (to - from);
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.0..self.range.1
    }
}

impl plotters::coord::ranged1d::ValueFormatter<f64> for Marked {
    fn format(value: &f64) -> String {
        value.to_string()
    }
}

impl Across {
    /// Where a value has its place.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
            Scale::Each => self.marks.iter().position(|(mark, _)| *mark == value).unwrap_or(0) as f64,
        }
    }

    fn axis(&self) -> Marked {
        let marks: Vec<_> = self.marks.iter().map(|(value, _)| self.place(*value)).collect();
        let (first, last) = (marks.first().copied().unwrap_or(0.0), marks.last().copied().unwrap_or(1.0));
        // Some room at both ends, and also where there is one value only.
        let room = ((last - first) * 0.04).max(0.05);
        Marked { range: (first - room, last + room), marks }
    }

    /// The name of the mark at a place.
    fn name(&self, place: f64) -> String {
        let near = |(value, _): &&(f64, String)| (self.place(*value) - place).abs() < 1e-9;
        self.marks.iter().find(near).map(|(_, name)| name.clone()).unwrap_or_default()
    }
}

/// A logarithmic axis that holds all of these: marks at 1, 10, 100; between them too, where there are few.
fn upwards(values: impl Iterator<Item = f64>) -> Marked {
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for place in values.filter(|value| *value > 0.0).map(f64::log10) {
        (least, most) = (least.min(place), most.max(place));
    }
    if least > most {
        (least, most) = (0.0, 1.0);
    }
    let room = ((most - least) * 0.08).max(0.1);
    let (from, to) = (least - room, most + room);
    let steps: &[f64] = if to - from > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let decades = (from.floor() as i32)..=(to.ceil() as i32);
    let marks = decades.flat_map(|decade| steps.iter().map(move |step| f64::from(decade) + step.log10()));
    Marked { range: (from, to), marks: marks.filter(|mark| (from..=to).contains(mark)).collect() }
}

impl Chart {
    /// The chart as an element of a page.
    pub(super) fn svg(&self) -> String {
        let mut svg = String::new();
        self.draw(SVGBackend::with_string(&mut svg, SIZE))
            .expect("text takes everything that is drawn on it");
        // Within a page the name of the language is not needed, and it would be the only address there.
        svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1)
    }

    fn draw<B: DrawingBackend>(&self, backend: B) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let area = backend.into_drawing_area();
        let lines = self.lines.iter().map(|line| &line.points);
        let all = lines.chain(self.bounds.iter().map(|bound| &bound.points)).flatten();
        let text = |pixels: u32| ("sans-serif", pixels).into_font().color(&INK);
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .margin_right(24)
            .x_label_area_size(BELOW)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(self.across.axis(), upwards(all.map(|(_, value)| *value)))?;
        chart
            .configure_mesh()
            .x_desc(&self.across.title)
            .y_desc(&self.upwards)
            .axis_desc_style(text(TEXT))
            .label_style(text(SMALL_TEXT))
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(GRID.mix(0.0))
            .x_label_formatter(&|place| self.across.name(*place))
            .y_label_formatter(&|place| (self.written)(10_f64.powf(*place)))
            .draw()?;
        let place = |(value, measured): &(f64, f64)| (self.across.place(*value), measured.log10());
        for bound in &self.bounds {
            let points: Vec<_> = bound.points.iter().map(place).collect();
            let style = ShapeStyle::from(&BOUND).stroke_width(2);
            chart.draw_series(DashedLineSeries::new(points.iter().copied(), 8, 6, style))?;
            let (Some(first), Some(last)) = (points.first(), points.last()) else { continue };
            // Where nothing measured is near: above a bound that is level, else below its lower end.
            let (at, shift, anchor) = match first.1.total_cmp(&last.1) {
                Ordering::Equal => (last, (0, -4), Pos::new(HPos::Right, VPos::Bottom)),
                Ordering::Less => (first, (22, 8), Pos::new(HPos::Left, VPos::Top)),
                Ordering::Greater => (last, (-8, 8), Pos::new(HPos::Right, VPos::Top)),
            };
            let font = ("sans-serif", SMALL_TEXT).into_font().color(&BOUND).pos(anchor);
            chart.draw_series([EmptyElement::at(*at) + Text::new(bound.name.clone(), shift, font)])?;
        }
        for line in &self.lines {
            let points: Vec<_> = line.points.iter().filter(|(_, value)| *value > 0.0).map(place).collect();
            let style = ShapeStyle::from(&colour(line.colour)).stroke_width(2);
            if line.is_dashed {
                chart.draw_series(DashedLineSeries::new(points.iter().copied(), 5, 4, style))?;
            } else {
                chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            }
            let dot = |point: &(f64, f64)| Circle::new(*point, 3, colour(line.colour).filled());
            chart.draw_series(points.iter().map(dot))?;
        }
        area.present()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_marks_at_decades() {
        let axis = upwards([0.0, 30.0, 40_000.0].into_iter());
        assert_eq!(axis.marks, [2.0, 3.0, 4.0]);
        assert!(axis.range.0 < 30_f64.log10() && axis.range.1 > 40_000_f64.log10());
        assert_eq!(upwards([100.0, 600.0].into_iter()).marks.len(), 3, "100, 200 and 500");
        assert!(upwards(std::iter::empty()).range.0 < 0.0, "nothing was measured");
    }

    #[test]
    fn places_of_values_are_marked_with_their_names() {
        let marks = vec![(0.0, "0".to_owned()), (5.0, "5 ms".to_owned())];
        let across = Across { title: String::new(), scale: Scale::Each, marks };
        assert_eq!((across.place(5.0), across.name(1.0)), (1.0, "5 ms".to_owned()));
        assert_eq!(across.axis().map(&0.5, (0, 100)), 50);
    }
}
