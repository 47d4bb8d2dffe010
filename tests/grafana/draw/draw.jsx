// Draws a dashboard with Grafana's own components from a live Prometheus, all rows open, and says what is to be seen.
// Not drawn: annotations, menus and links.
import { createTheme, ThemeContext } from '@grafana/data';
import { ErrorBoundary, GlobalStyles, PanelChrome } from '@grafana/ui';
import '@fontsource-variable/inter';
import { createRoot } from 'react-dom/client';

import { Panel } from './panels.jsx';
import { Prometheus } from './prometheus.js';
import { badlySet, red } from './seen.js';

// Grafana's grid: 24 columns; rows of 30 pixels, 8 apart.
const COLUMNS = 24;
const GAP = 8;
const high = (rows) => rows * 38 - GAP;

const theme = createTheme({ typography: { fontFamily: "'Inter Variable', sans-serif" } });

// Rows of panels with what their queries gave: `[{ title, values, panels: [{ panel, data, queries, errors }] }]`.
// `queries` has for each how many series have values.
async function asked(dashboard, prometheus) {
  const rows = [];
  for (const panel of dashboard.panels) {
    if (panel.type !== 'row') {
      rows.at(-1).panels.push(panel);
      continue;
    }
    const variable = dashboard.templating.list.find(({ name }) => name === panel.repeat);
    for (const value of variable ? await prometheus.values(variable) : [undefined]) {
      const values = variable ? { [variable.name]: value } : {};
      rows.push({ title: panel.title.replace(/\$\w+/, value), values, panels: [...panel.panels] });
    }
  }
  const answer = async (panel, values) => {
    try {
      const frames = await Promise.all(panel.targets.map((target) => prometheus.frames(target, values)));
      const queries = frames.map((frames) => frames.filter(hasValues).length);
      return { panel, data: frames.flat(), queries, errors: [] };
    } catch (error) {
      return { panel, data: [], queries: [], errors: [error.message] };
    }
  };
  for (const row of rows) row.panels = await Promise.all(row.panels.map((panel) => answer(panel, row.values)));
  return rows;
}

const hasValues = (frame) => frame.fields[1].values.some(Number.isFinite);

function Row({ row, time, width }) {
  const top = Math.min(...row.panels.map(({ panel }) => panel.gridPos.y));
  const bottom = Math.max(...row.panels.map(({ panel }) => panel.gridPos.y + panel.gridPos.h));
  const column = (width + GAP) / COLUMNS;
  return (
    <section style={{ position: 'relative', height: high(bottom - top) + 60 }}>
      <h4 style={{ padding: 10 }}>{row.title}</h4>
      {row.panels.map((drawn) => {
        const { panel, data, errors } = drawn;
        const { x, y, w, h } = panel.gridPos;
        const place = { position: 'absolute', left: x * column, top: 44 + (y - top) * 38 };
        return (
          <div key={panel.id} style={place} ref={(element) => (drawn.element = element)}>
            <PanelChrome title={panel.title} description={panel.description} width={w * column - GAP} height={high(h)}>
              {(width, height) => (
                <ErrorBoundary onError={(error) => errors.push(error.message)}>
                  {({ error }) => (error ? <p>{error.message}</p> : <Panel {...{ panel, data, time, theme, width, height }} />)}
                </ErrorBoundary>
              )}
            </PanelChrome>
          </div>
        );
      })}
    </section>
  );
}

let root;
let panels = [];

// Draws the dashboard of the last `seconds` at `url`, `width` pixels wide.
window.draw = async (dashboard, { url, seconds, scrape, width }) => {
  const to = Date.now() / 1000;
  const time = { from: to - seconds, to, seconds, scrape };
  const rows = await asked(dashboard, new Prometheus(url, time));
  panels = rows.flatMap((row) => row.panels.map((panel) => Object.assign(panel, { row: row.title })));
  root?.unmount();
  root = createRoot(document.getElementById('root'));
  root.render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      {rows.map((row) => (
        <Row key={row.title} {...{ row, time, width }} />
      ))}
    </ThemeContext.Provider>
  );
  await settled();
  return panels.map(({ row, panel, queries, errors, element }) => ({
    row,
    title: panel.title,
    queries,
    errors,
    text: element.innerText,
    bad: badlySet(element),
  }));
};

// The number of red pixels of each panel in a picture of the page.
window.red = (png) => red(png, panels.map(({ element }) => element));

// Waits until nothing moves any more: legends are measured before graphs are drawn.
async function settled() {
  await document.fonts.ready;
  let before;
  for (let same = 0; same < 5; ) {
    await new Promise((done) => setTimeout(done, 50));
    const now = document.body.innerHTML.length + document.querySelectorAll('canvas').length;
    same = now === before ? same + 1 : 0;
    before = now;
  }
}

// Grafana's icons are not among the packages: an empty one takes their place.
const fetchAll = window.fetch;
window.fetch = async (what, ...more) =>
  String(what).endsWith('.svg') ? new Response('<svg xmlns="http://www.w3.org/2000/svg"/>') : fetchAll(what, ...more);
