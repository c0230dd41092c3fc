#!lua flags=no-writes
-- Looks at records of messages: whether each is whole, and each piece where it says it is.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5..]  message ids
-- Result: {findings, pending pieces}

local findings, pending = {}, 0

local function find(text)
  findings[#findings + 1] = text
end

-- What is wrong with the place of a pending piece, nil if nothing is.
local function misplaced(piece)
  local entry = string.match(piece.place, '^e(%d+%-%d+)$')
  if entry then
    local there = look('XRANGE', stream_of(piece.lane), entry, entry)
    there = there and there[1]
    if not there then return 'is lost: it has no entry in its lane' end
    local id, index = read_entry(there[2])
    if id ~= piece.id or index ~= piece.index then return 'is lost: its entry names other work' end
    if lease_of(piece.lane, entry) then return nil end
    local last = last_delivered(piece.lane)
    if last and not is_after(entry, last) then return 'is lost: its entry was read and is not leased' end
  elseif piece.place == 'd' then
    local due = look('ZSCORE', due_of(piece.lane), member_of(piece))
    if not due then return 'is lost: it is not among the delayed' end
    if (moment(due) or piece.deadline) >= piece.deadline then return 'is delayed beyond its deadline' end
  elseif piece.place == 'k' then
    if not look('ZSCORE', park_of(piece.lane), parked_member_of(piece)) then
      return 'is lost: it is not among the parked'
    end
    if not moment(look('ZSCORE', wake_of(piece.lane), piece.destination)) then
      return 'is parked for a destination that nothing wakes'
    end
  else
    return 'is lost: it is in no place'
  end
  return nil
end

local function look_at(id)
  if not has_record(id) then
    -- It may have gone since it was listed.
    if redis.call('EXISTS', record_of(id)) == 1 then find('message ' .. id .. ' has a record of another type') end
    return
  end
  if not is_message_id(id) then
    find('a record has a name that is no message id')
    return
  end
  local record, fields = record_of(id), {}
  local all = redis.call('HGETALL', record)
  for at = 1, #all, 2 do fields[all[at]] = all[at + 1] end

  local here, letters = 0, 0
  local number, is_expanded = read_index(fields.n) or 0, false
  for name, value in pairs(fields) do
    local index = read_index(string.match(name, '^s(%d+)$'))
    local letter_of = read_index(string.match(name, '^x(%d+)$'))
    if index then
      local name_of_piece = id .. '/' .. index
      local piece, is_unreadable = read_piece(id, index)
      if is_unreadable then
        find(name_of_piece .. ' cannot be read')
        if not string.match(value, '^[SDXE]|') then here = here + 1 end
      else
        if index == 0 then is_expanded = piece.state == 'E' end
        if index > 0 and piece.state == 'E' then find(name_of_piece .. ' is expanded and no routing') end
        if index > number then find(name_of_piece .. ' is more than the message was routed to') end
        if piece.state == 'P' then
          here = here + 1
          local problem = misplaced(piece)
          if problem then find(name_of_piece .. ' ' .. problem) end
        elseif piece.place ~= '' then
          find(name_of_piece .. ' has ended and is in a place')
        end
        local is_kept = piece.state == 'P' or fields['x' .. index] ~= nil
        local recipient = fields['rc' .. index]
        -- A letter can be shown without.
        if index > 0 and ((piece.state == 'P' and not recipient) or (recipient and not is_kept)) then
          find(name_of_piece .. ' keeps a recipient that nothing needs, or lacks one that is needed')
        end
        if fields['h' .. index] and not is_kept then find(name_of_piece .. ' keeps a history that nothing needs') end
      end
    elseif letter_of then
      letters = letters + 1
      local state = string.sub(fields['s' .. letter_of] or '', 1, 1)
      local cause = string.match(value, '^(%a+)|%d+$')
      if not cause then
        find(id .. '/' .. letter_of .. ' is a letter that cannot be read')
      elseif state ~= (cause == 'expired' and 'X' or 'D') then
        find(id .. '/' .. letter_of .. ' is a letter of work that did not die')
      elseif not look('ZSCORE', letters_of(cause), id .. '|' .. letter_of) then
        find(id .. '/' .. letter_of .. ' is a letter that is not listed')
      end
    end
  end
  if not fields.s0 then find('message ' .. id .. ' has no routing') end
  if is_expanded then
    for index = 1, number do
      if not fields['s' .. index] then find(id .. '/' .. index .. ' is missing from its message') end
    end
  elseif number > 0 then
    find('message ' .. id .. ' has deliveries and was not routed')
  end

  pending = pending + here
  if natural(fields.left) ~= here then find('message ' .. id .. ' counts its pending work wrongly') end
  if natural(fields.lt or '0') ~= letters then find('message ' .. id .. ' counts its letters wrongly') end
  if (here > 0 and not fields.ct) or (here == 0 and letters == 0 and fields.ct) then
    find('message ' .. id .. ' keeps a text that nothing needs, or lacks one that is needed')
  end
  local ttl = redis.call('PTTL', record)
  if (here == 0) ~= (ttl >= 0) or (here == 0) ~= (fields.gone ~= nil) then
    find('message ' .. id .. ' has ended and does not expire, or the reverse')
  end
  if (here > 0) ~= (moment(look('ZSCORE', DEADLINES, id)) ~= nil) then
    find('message ' .. id .. ' is unfinished and its deadline is not listed, or the reverse')
  end
end

for at = 5, #ARGV do look_at(ARGV[at]) end
return { findings, pending }
