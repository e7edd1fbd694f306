function parity_record(net, inputs, file, varargin)
%PARITY_RECORD  Run a network with MatConvNet and save what parity compares.
%   PARITY_RECORD(NET, INPUTS, FILE) runs NET once, forward and backward, on one
%   batch, and writes FILE (.mat), which parity reads as a reference:
%
%       parity compare --ref FILE --keras model.h5
%
%   NET     a SimpleNN structure, a dagnn.DagNN object (or the structure that its
%           saveobj() gives), or the name of a .mat file that holds `net`.
%   INPUTS  for a SimpleNN {IMAGES, LABELS}, or {IMAGES} for a network without a
%           loss; for a DagNN the cell that net.eval() takes, {'input', IMAGES,
%           'label', LABELS}. IMAGES is H x W x C x N, LABELS count from 1.
%   FILE    is replaced only when the whole recording is written.
%
%   Options, as name and value:
%   'mode'         'train' (the default): dropout draws, bnorm takes the batch's
%                  moments, gradients are computed; or 'test': forward only.
%   'steps'        how many updates to make and record, 3; 0 records none. The
%                  first entry of learningRate holds for all of them.
%   'derOutputs'   of a DagNN: {'objective', 1}, or what net.meta.trainOpts says.
%   'learningRate', 'momentum', 'weightDecay', 'nesterovUpdate', 'solver',
%   'solverOpts'   as in cnn_train. Left out, they are those of
%                  net.meta.trainOpts, else cnn_train's defaults.
%
%   What is yours runs: MatConvNet of any release from beta17 on, its MEX files,
%   and layers of your own. Nothing is sent anywhere, NET itself is not changed.
%
%   The file holds `net`, as it was before the first update, and `parity`:
%     format      1
%     kind        'simplenn' or 'dagnn'
%     mode        'train' or 'test'
%     version     'head': losses are means over the images; 'beta25': sums
%     images      N
%     inputs      struct array: name, value
%     vars        struct array: name, value, der (raw, of the first pass), one for
%                 every tensor; those of a SimpleNN are x0, x1, ... xL
%     masks       struct array: layer, value (what dropout multiplied with)
%     steps       struct array: objective, and the cells param, der, after, and
%                 the step's own masks. A parameter of a SimpleNN is [layer entry],
%                 of a DagNN its name. The der of bnorm's moments are the batch's.
%     engine      which MATLAB or Octave ran it

  opts = options(varargin);
  [net, kind] = opened(net);
  file = withExtension(file);
  trained = strcmp(opts.mode, 'train');
  opts = completed(opts, net, trained);
  if strcmp(kind, 'simplenn')
    [inputs, net] = simpleInputs(net, inputs);
    if trained && ~isempty(net.layers) && strcmp(net.layers{end}.type, 'custom')
      warning('parity_record:loss', ['the last layer is a custom one, and not known to be a loss: ' ...
              'neither gradients nor updates are recorded']);
    end
  else
    if mod(numel(inputs), 2) || ~iscellstr(inputs(1:2:end))
      error('parity_record:inputs', 'INPUTS of a DagNN are names and values: {''input'', IMAGES, ''label'', LABELS}');
    end
    if trained && isempty(opts.derOutputs)
      warning('parity_record:derOutputs', ['no derOutputs: neither gradients nor updates are recorded. ' ...
              'Give the losses, as in parity_record(..., ''derOutputs'', {''objective'', 1})']);
    end
    inputs = struct('name', inputs(1:2:end), 'value', cellfun(@single_, inputs(2:2:end), 'UniformOutput', false));
  end

  parity.format = 1;
  parity.kind = kind;
  parity.mode = opts.mode;
  parity.version = release();
  parity.images = size(inputs(1).value, 4);
  parity.inputs = inputs;
  parity.engine = engine();
  saved = portable(net, kind, opts);

  if strcmp(kind, 'simplenn')
    parity = recordSimple(parity, net, opts);
  else
    parity = recordDag(parity, net, opts);
  end
  written(file, saved, parity);
end

% ------------------------------------------------------------------ SimpleNN

function parity = recordSimple(parity, net, opts)
  state = cell(1, numel(net.layers));
  for l = 1:numel(net.layers)
    state{l} = num2cell(zeros(1, numel(weightsOf(net.layers{l}))));
  end
  hasLoss = endsInLoss(net);
  parity.steps = struct('objective', {}, 'param', {}, 'der', {}, 'after', {}, 'masks', {});
  derives = strcmp(opts.mode, 'train') && hasLoss;
  for step = 1:max(1, derives * opts.steps)
    if derives
      res = vl_simplenn(net, parity.inputs(1).value, single(1), [], 'mode', 'normal', 'conserveMemory', false);
    elseif strcmp(opts.mode, 'train')
      res = vl_simplenn(net, parity.inputs(1).value, [], [], 'mode', 'normal', 'conserveMemory', false);
    else
      res = vl_simplenn(net, parity.inputs(1).value, [], [], 'mode', 'test', 'conserveMemory', false);
    end
    if step == 1
      for i = 1:numel(res)
        parity.vars(i).name = sprintf('x%d', i - 1);
        parity.vars(i).value = single_(res(i).x);
        parity.vars(i).der = single_(fieldOr(res(i), 'dzdx', []));
      end
    end
    masks = struct('layer', {}, 'value', {});
    for i = 1:numel(net.layers)
      mask = fieldOr(res(i + 1), 'aux', []);
      if strcmp(net.layers{i}.type, 'dropout') && ~isempty(mask) && strcmp(opts.mode, 'train')
        masks(end + 1) = struct('layer', fieldOr(net.layers{i}, 'name', ''), 'value', single_(mask));
      end
    end
    if step == 1, parity.masks = masks ; end
    if ~derives, break ; end
    made = struct('objective', double(gather_(res(end).x)), 'param', {{}}, 'der', {{}}, 'after', {{}}, 'masks', {masks});
    for l = numel(net.layers):-1:1
      weights = weightsOf(net.layers{l});
      for j = numel(weights):-1:1
        if j > numel(res(l).dzdw) || isempty(res(l).dzdw{j}), continue ; end
        der = res(l).dzdw{j};
        if opts.steps > 0
          moments = strcmp(net.layers{l}.type, 'bnorm') && j == 3;
          rate = entry(net.layers{l}, 'learningRate', j);
          decay = 0;
          if ~moments, decay = entry(net.layers{l}, 'weightDecay', j) ; end
          [weights{j}, state{l}{j}] = moved(weights{j}, state{l}{j}, der, rate, decay, moments, parity, opts);
          net.layers{l}.weights{j} = weights{j};
        end
        made.param{end + 1} = [l j];
        made.der{end + 1} = single_(der);
        made.after{end + 1} = afterwards(weights{j}, opts);
      end
    end
    parity.steps(step) = made;
  end
end

function [inputs, net] = simpleInputs(net, given)
  inputs = struct('name', 'x0', 'value', single_(given{1}));
  if numel(given) > 1
    net.layers{end}.class = given{2};
    inputs(2) = struct('name', 'label', 'value', single_(given{2}));
  elseif endsInLoss(net)
    error('parity_record:inputs', 'the network ends in a loss: INPUTS are {IMAGES, LABELS}');
  end
end

function yes = endsInLoss(net)
  yes = ~isempty(net.layers) && any(strcmp(net.layers{end}.type, {'softmaxloss', 'loss', 'pdist'}));
end

function weights = weightsOf(layer)
  weights = fieldOr(layer, 'weights', {});
end

function value = entry(layer, field, j)
  % cnn_train.m:81-92: what is not there is one.
  values = fieldOr(layer, field, []);
  if isempty(values)
    value = 1;
  else
    value = values(j);
  end
end

% --------------------------------------------------------------------- DagNN

function parity = recordDag(parity, net, opts)
  net.conserveMemory = false;
  net.accumulateParamDers = false;
  fed = reshape([{parity.inputs.name} ; {parity.inputs.value}], 1, []);
  trained = strcmp(opts.mode, 'train');
  parity.steps = struct('objective', {}, 'param', {}, 'der', {}, 'after', {}, 'masks', {});
  state = num2cell(zeros(1, numel(net.params)));
  derives = trained && ~isempty(opts.derOutputs);
  for step = 1:max(1, derives * opts.steps)
    if trained, net.mode = 'normal' ; else, net.mode = 'test' ; end
    if derives
      net.eval(fed, opts.derOutputs);
    else
      net.eval(fed);
    end
    if step == 1
      for i = 1:numel(net.vars)
        parity.vars(i).name = net.vars(i).name;
        parity.vars(i).value = single_(net.vars(i).value);
        parity.vars(i).der = single_(net.vars(i).der);
      end
    end
    masks = struct('layer', {}, 'value', {});
    for i = 1:numel(net.layers)
      block = net.layers(i).block;
      if isa(block, 'dagnn.DropOut') && trained && ~isempty(block.mask)
        masks(end + 1) = struct('layer', net.layers(i).name, 'value', single_(block.mask));
      end
    end
    if step == 1, parity.masks = masks ; end
    if ~derives, break ; end
    made = struct('objective', [], 'param', {{}}, 'der', {{}}, 'after', {{}}, 'masks', {masks});
    for i = 1:2:numel(opts.derOutputs)
      made.objective(end + 1) = double(gather_(net.vars(net.getVarIndex(opts.derOutputs{i})).value));
    end
    for p = 1:numel(net.params)
      der = net.params(p).der;
      if isempty(der), continue ; end
      if opts.steps > 0
        moments = strcmp(net.params(p).trainMethod, 'average');
        rate = net.params(p).learningRate;
        decay = net.params(p).weightDecay;
        [value, state{p}] = moved(net.params(p).value, state{p}, der, rate, decay, moments, parity, opts);
        net.params(p).value = value;
      end
      made.param{end + 1} = net.params(p).name;
      made.der{end + 1} = single_(der);
      made.after{end + 1} = afterwards(net.params(p).value, opts);
    end
    parity.steps(step) = made;
  end
end

% ------------------------------------------------------------------ training

function [value, state] = moved(value, state, der, rate, decay, moments, parity, opts)
  % One update as cnn_train makes it (accumulateGradients, cnn_train.m:455-520).
  share = 1;
  if strcmp(parity.version, 'beta25'), share = 1 / parity.images ; end
  if moments
    value = (1 - rate) * value + rate * share * der;
    return
  end
  decay = opts.weightDecay * decay;
  rate = opts.learningRate(1) * rate;
  if rate <= 0 && decay <= 0, return ; end
  grad = share * der + decay * value;
  if ~isempty(opts.solver)
    [value, state] = opts.solver(value, state, grad, opts.solverOpts, rate);
    return
  end
  state = opts.momentum * state - grad;
  delta = state;
  if opts.nesterovUpdate, delta = opts.momentum * state - grad ; end
  value = value + rate * delta;
end

function value = afterwards(value, opts)
  % What a parameter is after an update; nothing where none was made.
  if opts.steps == 0, value = [] ; else, value = single_(value) ; end
end

function version = release()
  % Since December 2017 a loss is divided by the number of images; before, it is their sum.
  twice = vl_nnloss(zeros(1, 1, 2, 2, 'single'), single([1 1]));
  once = vl_nnloss(zeros(1, 1, 2, 1, 'single'), single(1));
  if gather_(twice) > 1.5 * gather_(once), version = 'beta25' ; else, version = 'head' ; end
end

% ------------------------------------------------------------------- options

function opts = options(given)
  opts = struct('mode', 'train', 'steps', 3);
  known = {'mode', 'steps', 'derOutputs', 'learningRate', 'momentum', 'weightDecay', 'nesterovUpdate', 'solver', ...
           'solverOpts'};
  for i = 1:2:numel(given)
    if ~any(strcmp(given{i}, known))
      error('parity_record:option', 'unknown option ''%s''; the options are %s', given{i}, strjoin(known, ', '));
    end
    opts.(given{i}) = given{i + 1};
  end
  if ~any(strcmp(opts.mode, {'train', 'test'}))
    error('parity_record:option', 'mode is ''train'' or ''test'', not ''%s''', opts.mode);
  end
end

function opts = completed(opts, net, trained)
  % What is not given: net.meta.trainOpts, then the defaults of cnn_train.m:20-50.
  written = fieldOr(fieldOr(net, 'meta', struct()), 'trainOpts', struct());
  defaults = struct('learningRate', 0.001, 'momentum', 0.9, 'weightDecay', 0.0005, 'nesterovUpdate', false, ...
                    'solver', [], 'solverOpts', []);
  names = fieldnames(defaults);
  for i = 1:numel(names)
    if ~isfield(opts, names{i}), opts.(names{i}) = fieldOr(written, names{i}, defaults.(names{i})) ; end
  end
  if ischar(opts.solver) && ~isempty(opts.solver), opts.solver = str2func(opts.solver) ; end
  if ~isempty(opts.solver) && isempty(opts.solverOpts), opts.solverOpts = opts.solver() ; end
  if ~isfield(opts, 'derOutputs')
    opts.derOutputs = fieldOr(written, 'derOutputs', {});
    if isempty(opts.derOutputs) && trained && isDag(net) && ~isnan(net.getVarIndex('objective'))
      opts.derOutputs = {'objective', 1};
    end
  end
end

function [net, kind] = opened(net)
  if ischar(net)
    held = load(net);
    net = fieldOr(held, 'net', held);
  end
  if isDag(net)
    kind = 'dagnn';
  elseif isstruct(net) && isfield(net, 'layers') && iscell(net.layers)
    kind = 'simplenn';
    net = vl_simplenn_tidy(net);
  elseif isstruct(net) && isfield(net, 'layers')
    kind = 'dagnn';
    net = dagnn.DagNN.loadobj(net);
  else
    error('parity_record:net', 'NET is neither a SimpleNN nor a DagNN, nor a file with one');
  end
end

function yes = isDag(net)
  yes = isobject(net) && isprop_(net, 'vars') && isprop_(net, 'params');
end

function yes = isprop_(net, name)
  yes = any(strcmp(name, properties(net)));
end

% --------------------------------------------------------------------- files

function saved = portable(net, kind, opts)
  % The network as a structure that any program can read, with the recipe that was used.
  if strcmp(kind, 'dagnn')
    saved = net.saveobj();
  else
    saved = net;
    for l = 1:numel(saved.layers)
      names = fieldnames(saved.layers{l});
      for i = 1:numel(names)
        % The code of a custom layer stays here: parity compares what it made.
        value = saved.layers{l}.(names{i});
        if isa(value, 'function_handle'), saved.layers{l}.(names{i}) = func2str(value) ; end
      end
    end
  end
  recipe = {'learningRate', 'momentum', 'weightDecay', 'nesterovUpdate', 'derOutputs'};
  for i = 1:numel(recipe)
    saved.meta.trainOpts.(recipe{i}) = opts.(recipe{i});
  end
  if ~isempty(opts.solver)
    saved.meta.trainOpts.solver = func2str(opts.solver);
    saved.meta.trainOpts.solverOpts = opts.solverOpts;
  end
end

function written(file, net, parity)
  % First beside the file, then in its place: an interruption leaves the old one.
  part = [file '.part.mat'];
  tidy = onCleanup(@() removed(part));
  content = whos('net', 'parity');
  if sum([content.bytes]) > 2e9 && ~isOctave()
    save(part, 'net', 'parity', '-v7.3');
  else
    save(part, 'net', 'parity', '-v7');
  end
  [done, why] = movefile(part, file, 'f');
  if ~done, error('parity_record:file', 'cannot write %s: %s', file, why) ; end
end

function removed(file)
  if exist(file, 'file'), delete(file) ; end
end

function file = withExtension(file)
  [~, ~, extension] = fileparts(file);
  if isempty(extension), file = [file '.mat'] ; end
end

function words = engine()
  if isOctave(), words = ['Octave ' version()] ; else, words = ['MATLAB ' version()] ; end
end

function yes = isOctave()
  yes = exist('OCTAVE_VERSION', 'builtin') ~= 0;
end

% -------------------------------------------------------------------- values

function value = fieldOr(from, name, default)
  value = default;
  if isstruct(from) && isfield(from, name)
    value = from.(name);
  elseif isobject(from) && isprop_(from, name)
    value = from.(name);
  end
end

function value = single_(value)
  value = gather_(value);
  if isnumeric(value) && ~isa(value, 'double'), return ; end
  if isnumeric(value) || islogical(value), value = single(value) ; end
end

function value = gather_(value)
  if isa(value, 'gpuArray'), value = gather(value) ; end
end
