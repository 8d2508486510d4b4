-- Where the members of a JSON object stand in its text, so that a request can be changed without
-- being written anew: numbers, empty lists and the order of keys stay what the client sent.

local cjson = require "cjson.safe"
local byte, find, sub = string.byte, string.find, string.sub
local QUOTE, BACKSLASH, OPEN, CLOSE, BRACKET = 34, 92, 123, 125, 91

local M = {}

local function string_end(text, at)
    repeat
        at = find(text, '["\\]', at + 1)
        if not at then return nil end
        local escape = byte(text, at) == BACKSLASH
        if escape then at = at + 1 end
    until not escape
    return at
end

local function value_end(text, at)
    local first = byte(text, at)
    if first == QUOTE then return string_end(text, at) end
    if first == OPEN or first == BRACKET then
        local depth = 0
        local place = at - 1
        repeat
            place = find(text, '["{}%[%]]', place + 1)
            if not place then return nil end
            local found = byte(text, place)
            if found == QUOTE then
                place = string_end(text, place)
                if not place then return nil end
            elseif found == OPEN or found == BRACKET then
                depth = depth + 1
            else
                depth = depth - 1
            end
        until depth == 0
        return place
    end
    local _, last = find(text, "^[%w+.-]+", at)
    return last
end

local function word(text, at)
    return find(text, "[^ \t\r\n]", at)
end

-- A name in lower case, and the two letters beyond ASCII that readers take for one of it.
local function folded(name)
    return (name:lower():gsub("\197\191", "s"):gsub("\226\132\170", "k"))
end

-- The members of the object that begins at `at`: name -> {from, to} of its value, inclusive, and
-- the place after the object. A name that stands twice is refused, and so is one that differs
-- from one of `read`, a set, in case only: two readers of such an object need not agree on which
-- one counts, and that of some engines takes the last in any case.
function M.members(text, at, read)
    local found = {}
    at = word(text, at)
    if not at or byte(text, at) ~= OPEN then return nil, "it is not a JSON object" end
    at = word(text, at + 1)
    if at and byte(text, at) == CLOSE then return found, at + 1 end
    while at do
        if byte(text, at) ~= QUOTE then return nil, "it is not valid JSON" end
        local stop = string_end(text, at)
        local name = stop and cjson.decode("[" .. sub(text, at, stop) .. "]")
        if not name then return nil, "it is not valid JSON" end
        name = name[1]
        at = word(text, stop + 1)
        if not at or sub(text, at, at) ~= ":" then return nil, "it is not valid JSON" end
        at = word(text, at + 1)
        local last = at and value_end(text, at)
        if not last then return nil, "it is not valid JSON" end
        if found[name] then return nil, "it has a key twice" end
        local plain = folded(name)
        if plain ~= name and read[plain] then
            return nil, "it has the key " .. plain .. " in other letters"
        end
        found[name] = {at, last}
        at = word(text, last + 1)
        local mark = at and sub(text, at, at)
        if mark == "}" then return found, at + 1 end
        if mark ~= "," then return nil, "it is not valid JSON" end
        at = word(text, at + 1)
    end
    return nil, "it is not valid JSON"
end

-- The same for a whole text: nothing may follow the object.
function M.document(text, read)
    local found, after = M.members(text, 1, read)
    if not found then return nil, after end
    if word(text, after) then return nil, "something follows its JSON object" end
    return found
end

-- The value of a member; nil when it is missing or cannot be read.
function M.value(text, place)
    if not place then return nil end
    local list = cjson.decode("[" .. sub(text, place[1], place[2]) .. "]")
    return list and list[1]
end

-- A string as JSON text, quotes included.
function M.quoted(text)
    -- The library escapes slashes, which nobody needs.
    return (cjson.encode(text):gsub("\\/", "/"))
end

-- The text with edits {from, to, new} made; an insertion has to == from - 1.
function M.edited(text, edits)
    table.sort(edits, function(one, two) return one[1] < two[1] end)
    local pieces, done = {}, 1
    for _, edit in ipairs(edits) do
        pieces[#pieces + 1] = sub(text, done, edit[1] - 1)
        pieces[#pieces + 1] = edit[3]
        done = edit[2] + 1
    end
    pieces[#pieces + 1] = sub(text, done)
    return table.concat(pieces)
end

return M
