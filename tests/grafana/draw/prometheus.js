// A simulation of Grafana's Prometheus data source, which is not among the packages: variables, and the answers to
// queries as data frames.
import { FieldType, toDataFrame } from '@grafana/data';

// Asks the Prometheus at `url`; `time` has the range that is looked at, in seconds, and how often it scrapes.
export class Prometheus {
  constructor(url, time) {
    this.url = url;
    this.time = time;
  }

  async ask(what, parameters) {
    const answer = await fetch(`${this.url}/api/v1/${what}?${new URLSearchParams(parameters)}`);
    const { status, data, error } = await answer.json();
    if (status !== 'success') throw new Error(error);
    return data;
  }

  // The values of a variable, whose definition is `label_values(series, label)`.
  async values(variable) {
    const [, series, label] = /^label_values\((.*), (\w+)\)$/s.exec(variable.definition);
    return this.ask(`label/${label}/values`, { 'match[]': this.replaced(series, {}) });
  }

  // A query with values in the place of variables. A variable that has no value in `values` is `All`.
  replaced(expression, values) {
    const { seconds, scrape } = this.time;
    const builtIn = { __rate_interval: `${4 * scrape}s`, __range: `${seconds}s`, __range_s: `${seconds}` };
    return expression.replace(/\$(\w+)/g, (_, name) => builtIn[name] ?? values[name] ?? '.*');
  }

  // The frames of one target of a panel, one for each series.
  async frames(target, values) {
    const { from, to, scrape } = this.time;
    const query = this.replaced(target.expr, values);
    const { result } = target.instant
      ? await this.ask('query', { query, time: to })
      : await this.ask('query_range', { query, start: from, end: to, step: scrape });
    return result.map(({ metric, value, values = [value] }) =>
      toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: values.map(([time]) => 1000 * time), config: { interval: 1000 * scrape } },
          {
            name: 'Value',
            type: FieldType.number,
            labels: metric,
            values: values.map(([, number]) => Number(number)),
            config: { displayNameFromDS: target.legendFormat.replace(/{{(\w+)}}/g, (_, label) => metric[label] ?? '') },
          },
        ],
      })
    );
  }
}
