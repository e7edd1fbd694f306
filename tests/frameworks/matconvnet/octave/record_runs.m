function record_runs(folder)
% Records the runs that the tests read: a SimpleNN and a DagNN, each with a layer of its author's.
  here = fileparts(mfilename('fullpath'));
  addpath(here, fullfile(here, '..', '..', '..', '..', 'parity', 'frameworks', 'matconvnet', 'matlab'));
  rand('seed', 1);
  randn('seed', 1);
  w = @(varargin) single(0.3 * randn(varargin{:}));
  x = single(randn(6, 6, 2, 5));
  y = single([1 2 3 1 2]);

  net.layers = { ...
    struct('type', 'conv', 'name', 'c1', 'weights', {{w(3,3,2,4), w(1,4)}}, 'pad', 1, 'stride', 1), ...
    struct('type', 'bnorm', 'name', 'b1', 'weights', {{w(4,1) + 1, w(4,1), ones(4,2,'single')}}, ...
           'learningRate', [1 1 0.1], 'weightDecay', [0 0]), ...
    struct('type', 'relu', 'name', 'r1'), ...
    struct('type', 'custom', 'name', 'half', 'forward', @(l, a, b) setfield(b, 'x', a.x / 2), ...
           'backward', @(l, a, b) setfield(a, 'dzdx', b.dzdx / 2)), ...
    struct('type', 'conv', 'name', 'c2', 'weights', {{w(6,6,4,3), w(1,3)}}, 'learningRate', [1 2], ...
           'pad', 0, 'stride', 1), ...
    struct('type', 'softmaxloss', 'name', 'loss')};
  net.meta.trainOpts.learningRate = 0.1;
  parity_record(net, {x, y}, fullfile(folder, 'simple_head'));
  parity_record(net, {x, y}, fullfile(folder, 'simple_eval.mat'), 'mode', 'test');
  setenv('PARITY_SUMS', '1');
  parity_record(net, {x, y}, fullfile(folder, 'simple_sums.mat'));
  setenv('PARITY_SUMS', '');

  dag = dagnn.DagNN();
  conv = @(size, pad) struct('size', size, 'hasBias', true, 'pad', pad * [1 1 1 1], 'stride', [1 1], ...
                             'dilate', [1 1], 'opts', {{'cuDNN'}});
  dag.addLayer('c1', 'dagnn.Conv', conv([3 3 2 4], 1), {'input'}, {'a'}, {'c1f', 'c1b'}, {w(3,3,2,4), w(4,1)});
  dag.addLayer('r1', 'dagnn.ReLU', struct('leak', 0, 'useShortCircuit', true, 'opts', {{}}), {'a'}, {'b'}, {}, {});
  dag.addLayer('sum', 'dagnn.Sum', struct(), {'a', 'b'}, {'c'}, {}, {});
  dag.addLayer('half', 'mine.Halve', struct(), {'c'}, {'d'}, {}, {});
  dag.addLayer('c2', 'dagnn.Conv', conv([6 6 4 3], 0), {'d'}, {'p'}, {'c2f', 'c2b'}, {w(6,6,4,3), w(3,1)});
  dag.addLayer('loss', 'dagnn.Loss', struct('loss', 'softmaxlog', 'ignoreAverage', false, 'opts', {{}}), ...
               {'p', 'label'}, {'objective'}, {}, {});
  parity_record(dag, {'input', x, 'label', y}, fullfile(folder, 'dag.mat'), 'learningRate', 0.05, 'steps', 2);

  drop = struct('type', 'dropout', 'name', 'drop', 'rate', 0.25);
  net.layers = [net.layers(1:3), {drop}, net.layers(4:end)];
  parity_record(net, {x, y}, fullfile(folder, 'simple_dropout.mat'), 'steps', 2);
  parity_record(net, {x, y}, fullfile(folder, 'simple_still.mat'), 'steps', 0);
end
