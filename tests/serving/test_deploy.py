"""The files for Docker, Kubernetes, Prometheus and Grafana fit the server and their formats."""

import argparse
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import httpx2
import kubernetes_validate
import pytest
import yaml

from toolformer_jax.commands import serve as command

REPOSITORY = pathlib.Path(__file__).parents[2]
DEPLOY = REPOSITORY / 'deploy'
RULES = DEPLOY / 'prometheus_rules.yaml'
_METRIC = re.compile(r'(?:vllm|toolformer):\w+')


def parse(argv):
  parser = argparse.ArgumentParser(exit_on_error=False)
  command.add_arguments(parser)
  return parser.parse_args(argv)


@pytest.fixture(scope='module')
def metrics(server):
  server.post('completions', prompt='ab is')
  return httpx2.get(f'{server.url}/metrics').text


@pytest.fixture(scope='module')
def manifest():
  return {document['kind']: document for document in
          yaml.safe_load_all((DEPLOY / 'kubernetes.yaml').read_text())}


def instructions():
  text = (DEPLOY / 'Dockerfile').read_text().replace('\\\n', ' ')
  lines = [line for line in text.splitlines() if line and not line.startswith('#')]
  return [tuple(line.split(' ', 1)) for line in lines]


def test_the_image_copies_what_there_is_and_starts_the_server():
  for name, rest in instructions():
    if name == 'COPY':
      *sources, _ = shlex.split(rest)
      assert all((REPOSITORY / source).exists() for source in sources)
  found = dict(instructions())
  start, *options = json.loads(found['ENTRYPOINT'])
  args = parse([*options[1:], *json.loads(found['CMD'])])
  assert (start, options[0]) == ('toolformer', 'serve')
  assert args.host == '0.0.0.0' and args.api_key_file and str(args.port) == found['EXPOSE']
  assert f'127.0.0.1:{args.port}/health' in found['HEALTHCHECK']


def test_the_image_has_all_that_its_build_needs(tmp_path):
  for name, rest in instructions():
    if name == 'COPY':
      *sources, target = shlex.split(rest)
      for source in sources:
        if (REPOSITORY / source).is_dir():
          shutil.copytree(REPOSITORY / source, tmp_path / target,
                          ignore=shutil.ignore_patterns('__pycache__'))
        else:
          shutil.copy(REPOSITORY / source, tmp_path / target)
  done = subprocess.run([sys.executable, 'setup.py', '-q', 'build_py', '-d', 'built'],
                        cwd=tmp_path, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  package = tmp_path / 'built/toolformer_jax'
  assert (package / 'serving/templates/page.js').exists() and (package / 'configs').is_dir()


def test_the_manifest_is_valid(manifest):
  assert set(manifest) == {'Deployment', 'Service', 'HorizontalPodAutoscaler',
                           'PodDisruptionBudget'}
  for document in manifest.values():
    kubernetes_validate.validate(document, '1.33', strict=True)


def test_the_probes_are_those_of_the_server(manifest, server):
  pod = manifest['Deployment']['spec']['template']['spec']
  [container] = pod['containers']
  image = dict(instructions())
  args = parse([*json.loads(image['ENTRYPOINT'])[2:], *container['args']])
  assert args.drain_s + 5 < pod['terminationGracePeriodSeconds']
  assert container['ports'][0]['containerPort'] == args.port
  mounts = {mount['mountPath'] for mount in container['volumeMounts']}
  assert str(args.api_key_file) in mounts and '/cache' in mounts
  for probe in ('startupProbe', 'readinessProbe', 'livenessProbe'):
    path = container[probe]['httpGet']['path']
    assert httpx2.get(server.url + path).status_code == 200


def test_the_autoscaler_follows_the_queue(manifest, metrics):
  [metric] = manifest['HorizontalPodAutoscaler']['spec']['metrics']
  name = metric['pods']['metric']['name']
  assert f'{name.replace("vllm_", "vllm:")}{{' in metrics


def test_rules_and_board_use_what_the_server_measures(metrics):
  measured = {line.partition('{')[0] for line in metrics.splitlines() if line[:1] != '#'}
  rules = yaml.safe_load(RULES.read_text())
  board = json.loads((DEPLOY / 'grafana_dashboard.json').read_text())
  queries = [rule['expr'] for group in rules['groups'] for rule in group['rules']]
  queries += [target['expr'] for panel in board['panels'] for target in panel['targets']]
  used = {name for query in queries for name in _METRIC.findall(query)}
  assert len(used) > 8 and used <= measured


def test_the_board_is_one():
  board = json.loads((DEPLOY / 'grafana_dashboard.json').read_text())
  assert board['title'] and board['uid'] and board['schemaVersion'] >= 36
  ids = [panel['id'] for panel in board['panels']]
  assert len(set(ids)) == len(ids)
  variables = {variable['name'] for variable in board['templating']['list']}
  text = json.dumps(board['panels'])
  assert set(re.findall(r'\$\{?(\w+)', text)) - {'__rate_interval'} <= variables
  places = [(panel['gridPos']['x'], panel['gridPos']['y']) for panel in board['panels']]
  assert len(set(places)) == len(places)
  assert all(panel['gridPos']['x'] + panel['gridPos']['w'] <= 24 for panel in board['panels'])


@pytest.mark.skipif(shutil.which('promtool') is None, reason='there is no promtool')
def test_prometheus_reads_the_rules(tmp_path):
  shutil.copy(RULES, tmp_path / 'rules.yaml')
  (tmp_path / 'tests.yaml').write_text("""
rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'vllm:num_requests_waiting{instance="a", model_name="m"}', values: '60x20'}
      - {series: 'vllm:num_requests_waiting{instance="a", model_name="n"}', values: '40x20'}
      - {series: 'vllm:num_requests_waiting{instance="b", model_name="m"}', values: '3x20'}
      - {series: 'toolformer:tool_calls_total{instance="a", tool="QA"}', values: '0+10x30'}
      - {series: 'toolformer:tool_failures_total{instance="a", tool="QA"}', values: '0+6x30'}
    alert_rule_test:
      - alertname: ToolformerQueueIsLong
        eval_time: 10m
        exp_alerts:
          - exp_labels: {severity: warning, instance: a}
            exp_annotations:
              summary: '100 requests wait on a; add replicas or slots.'
      - alertname: ToolformerToolFails
        eval_time: 25m
        exp_alerts:
          - exp_labels: {severity: warning, instance: a, tool: QA}
            exp_annotations:
              summary: 'More than half of the calls of QA fail on a.'
      - alertname: ToolformerRequestsFail
        eval_time: 10m
        exp_alerts: []
""")
  for command_line in (['check', 'rules', 'rules.yaml'], ['test', 'rules', 'tests.yaml']):
    done = subprocess.run(['promtool', *command_line], cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
