// A simulation of Grafana's panels `stat` and `timeseries`, and of its registry of field options: they are in Grafana's
// core, which is not among the packages. What they draw with is Grafana's own.
import {
  applyFieldOverrides,
  dateTime,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  standardFieldConfigEditorRegistry,
} from '@grafana/data';
import { BigValue, TimeSeries, VizRepeater } from '@grafana/ui';

const OPTIONS = ['unit', 'min', 'max', 'decimals', 'displayName', 'color', 'thresholds', 'mappings', 'links', 'noValue'];
const CUSTOM_OPTIONS = [
  'drawStyle', 'lineInterpolation', 'lineWidth', 'lineStyle', 'fillOpacity', 'showPoints', 'spanNulls', 'stacking',
  'axisPlacement', 'axisLabel', 'axisSoftMin', 'axisSoftMax', 'thresholdsStyle',
];

const option = (id, path, isCustom) => ({ id, path, isCustom, name: id, process: (value) => value, shouldApply: () => true });
standardFieldConfigEditorRegistry.setInit(() => [
  ...OPTIONS.map((id) => option(id, id, false)),
  ...CUSTOM_OPTIONS.map((id) => option(`custom.${id}`, id, true)),
]);

// The field configuration of a panel as Grafana has it after loading: the first threshold begins at minus infinity.
function loaded({ defaults, overrides }) {
  for (const id of [...Object.keys(defaults), ...overrides.flatMap((one) => one.properties.map(({ id }) => id))]) {
    if (id !== 'custom') standardFieldConfigEditorRegistry.get(id);
  }
  for (const id of Object.keys(defaults.custom ?? {})) standardFieldConfigEditorRegistry.get(`custom.${id}`);
  const steps = defaults.thresholds.steps.map(({ value, color }) => ({ value: value ?? -Infinity, color }));
  return { defaults: { ...defaults, thresholds: { ...defaults.thresholds, steps } }, overrides };
}

function Stat({ frames, fieldConfig, options, theme, width, height }) {
  const replaceVariables = (text) => text;
  const getValues = () =>
    getFieldDisplayValues({ data: frames, fieldConfig, reduceOptions: options.reduceOptions, replaceVariables, theme, timeZone: 'utc' });
  const renderValue = ({ value, width, height, count, alignmentFactors }) => (
    <BigValue
      {...{ width, height, count, alignmentFactors, theme, value: value.display }}
      colorMode={options.colorMode}
      graphMode={options.graphMode}
      justifyMode={options.justifyMode}
      textMode={options.textMode}
      disableWideLayout={!options.wideLayout}
    />
  );
  return (
    <VizRepeater
      {...{ width, height, getValues, renderValue }}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      source={frames}
      renderCounter={0}
      orientation={options.orientation}
      autoGrid
    />
  );
}

function Graph({ frames, options, time, width, height }) {
  const [from, to] = [time.from, time.to].map((seconds) => dateTime(1000 * seconds));
  const timeRange = { from, to, raw: { from, to } };
  return <TimeSeries {...{ frames, timeRange, width, height, legend: options.legend, timeZone: 'utc' }} />;
}

const KINDS = { stat: Stat, timeseries: Graph };

export function Panel({ panel, data, time, theme, width, height }) {
  const Kind = KINDS[panel.type];
  if (!Kind) throw new Error(`a panel of the kind ${panel.type} cannot be drawn`);
  const fieldConfig = loaded(panel.fieldConfig);
  const frames = applyFieldOverrides({ data, fieldConfig, theme, replaceVariables: (text) => text, timeZone: 'utc' });
  if (frames.length === 0) return <p>No data</p>;
  return <Kind {...{ frames, fieldConfig, options: panel.options, time, theme, width, height }} />;
}
