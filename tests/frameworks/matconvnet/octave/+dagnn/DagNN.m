classdef DagNN < handle
% A chain of blocks with DagNN's face: vars, params, layers, eval, saveobj.
  properties
    layers = struct('name', {}, 'type', {}, 'inputs', {}, 'outputs', {}, 'params', {}, 'block', {})
    vars = struct('name', {}, 'value', {}, 'der', {}, 'precious', {})
    params = struct('name', {}, 'value', {}, 'der', {}, 'learningRate', {}, 'weightDecay', {}, 'trainMethod', {})
    meta = struct()
    mode = 'normal'
    conserveMemory = true
    accumulateParamDers = false
  end

  methods
    function addLayer(obj, name, type, block, inputs, outputs, params, values)
      layer = struct('name', name, 'type', type, 'inputs', {inputs}, 'outputs', {outputs}, ...
                     'params', {params}, 'block', block);
      obj.layers(end+1) = layer;
      for each = [inputs, outputs]
        if isnan(obj.getVarIndex(each{1}))
          obj.vars(end+1) = struct('name', each{1}, 'value', [], 'der', [], 'precious', false);
        end
      end
      for p = 1:numel(params)
        obj.params(end+1) = struct('name', params{p}, 'value', values{p}, 'der', [], 'learningRate', 1, ...
                                   'weightDecay', 1, 'trainMethod', 'gradient');
      end
    end

    function at = getVarIndex(obj, name)
      at = find(strcmp({obj.vars.name}, name));
      if isempty(at), at = NaN ; end
    end

    function eval(obj, inputs, ders)
      for i = 1:2:numel(inputs)
        obj.vars(obj.getVarIndex(inputs{i})).value = inputs{i+1};
      end
      for layer = obj.layers
        at = cellfun(@(name) obj.getVarIndex(name), layer.inputs);
        value = obj.run(layer, {obj.vars(at).value}, []);
        obj.vars(obj.getVarIndex(layer.outputs{1})).value = value{1};
      end
      if nargin < 3, return ; end
      for i = 1:numel(obj.vars), obj.vars(i).der = [] ; end
      for i = 1:2:numel(ders), obj.vars(obj.getVarIndex(ders{i})).der = single(ders{i+1}) ; end
      for l = numel(obj.layers):-1:1
        layer = obj.layers(l);
        at = cellfun(@(name) obj.getVarIndex(name), layer.inputs);
        der = obj.vars(obj.getVarIndex(layer.outputs{1})).der;
        if isempty(der), continue ; end
        made = obj.run(layer, {obj.vars(at).value}, der);
        for i = 1:numel(at)
          if i > numel(made), break ; end
          if isempty(obj.vars(at(i)).der)
            obj.vars(at(i)).der = made{i};
          else
            obj.vars(at(i)).der = obj.vars(at(i)).der + made{i};
          end
        end
      end
    end

    function made = run(obj, layer, x, der)
      at = cellfun(@(name) find(strcmp({obj.params.name}, name)), layer.params);
      switch layer.type
        case 'dagnn.Conv'
          w = obj.params(at(1)).value;
          b = obj.params(at(2)).value;
          if isempty(der)
            made = {vl_nnconv(x{1}, w, b, [], layer.block.pad(1), layer.block.stride(1))};
          else
            [dx, dw, db] = vl_nnconv(x{1}, w, b, der, layer.block.pad(1), layer.block.stride(1));
            made = {dx};
            obj.params(at(1)).der = dw;
            obj.params(at(2)).der = db;
          end
        case 'dagnn.ReLU'
          if isempty(der), made = {max(x{1}, 0)} ; else, made = {der .* (x{1} > 0)} ; end
        case 'dagnn.Sum'
          if isempty(der), made = {x{1} + x{2}} ; else, made = {der, der} ; end
        case 'dagnn.Loss'
          if isempty(der), made = {vl_nnloss(x{1}, x{2})} ; else, made = {vl_nnloss(x{1}, x{2}, der)} ; end
        case 'mine.Halve'
          if isempty(der), made = {x{1} / 2} ; else, made = {der / 2} ; end
      end
    end

    function s = saveobj(obj)
      s.vars = struct('name', {obj.vars.name}, 'precious', {obj.vars.precious});
      s.params = struct('name', {obj.params.name}, 'value', {obj.params.value}, ...
                        'learningRate', {obj.params.learningRate}, 'weightDecay', {obj.params.weightDecay});
      s.layers = obj.layers;
      s.meta = obj.meta;
    end
  end
end
